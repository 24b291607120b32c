/** Cron on a clock that the test sets, with functions, calls and records that it brings. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { isAppError } from "../../../src/base/errors.ts";
import { openLog } from "../../../src/base/log.ts";
import { CronStore } from "../../../src/store/cron.ts";
import { openState } from "../../../src/store/state.ts";
import { Cron, type CronCall, type CronFunction } from "../../../src/trigger/cron.ts";
import type { CronState } from "../../../src/trigger/cron-job.ts";
import { SetClock } from "../../fakes/clock.ts";
import { tmpDir } from "../../support/tmp.ts";

type Annotations = Record<string, string>;

const id = { name: "web", namespace: "fn" };
const every = (schedule: string, more: Annotations = {}): Annotations => ({
  topic: "cron-function",
  schedule,
  ...more,
});

/** A state database that outlives its daemons, and calls that end when the test says so. */
async function open(annotations: Annotations, start = "2026-03-01T12:00:30Z") {
  const dir = await tmpDir();
  const db = openState(dir.path);
  const clock = new SetClock(start);
  const calls: CronCall[] = [];
  const functions: CronFunction[] = [{ id, annotations }];
  const pending: (() => void)[] = [];
  const t = {
    clock,
    calls,
    functions,
    holds: false,
    answer: async (): Promise<{ status: number }> => ({ status: 200 }),
    cron: undefined as unknown as Cron,
    /** Another daemon on the same state. */
    restart() {
      t.cron?.stop();
      t.cron = new Cron({
        functions: () => functions,
        async deliver(call, signal) {
          calls.push(call);
          if (t.holds)
            await new Promise<void>((resolve, reject) => {
              pending.push(resolve);
              signal.addEventListener("abort", () => reject(signal.reason));
            });
          return t.answer();
        },
        records: new CronStore<CronState>(db),
        ...{ timeZone: "UTC", clock, log: openLog("silent") },
      });
      t.cron.tick();
    },
    /** Time passes, looked at every `step`. */
    pass(ms: number, step = 1000) {
      for (let passed = 0; passed < ms; passed += step) {
        clock.pass(Math.min(step, ms - passed));
        t.cron.tick();
      }
    },
    async finish() {
      for (const resolve of pending.splice(0)) resolve();
      await turn();
    },
    runs: () => t.cron.list("fn")[0]!.runs,
    results: () => t.runs().map((run) => `${run.trigger} ${run.result}`),
    async [Symbol.asyncDispose]() {
      await t.finish();
      t.holds = false;
      await t.cron[Symbol.asyncDispose]();
      db.close();
      await dir[Symbol.asyncDispose]();
    },
  };
  t.restart();
  return t;
}

suite("cron", () => {
  test("calls as cron-connector does, once an instant, and remembers what came of it", async () => {
    await using t = await open(every("* * * * *"));
    t.pass(29_000);
    assert.equal(t.calls.length, 0);
    t.pass(1000, 100);
    t.pass(2000, 100);
    assert.equal(t.calls.length, 1);
    const { callId, ...run } = t.runs()[0]!;
    const headers = {
      ...{ "X-Topic": "cron-function", "X-Connector": "cron-connector" },
      ...{ "User-Agent": "napd-cron", "X-Call-Id": callId },
    };
    assert.deepEqual(t.calls, [{ id, headers, isAsync: false }]);
    await turn();
    const at = Date.parse("2026-03-01T12:01:00Z");
    assert.equal(run.scheduledAt, at);
    assert.equal(run.startedAt, at);
    assert.deepEqual(t.results(), ["schedule ok"]);
    t.pass(120_000);
    assert.equal(t.calls.length, 3);
  });

  test("a topic may stand in a list; without it nobody is called", async () => {
    await using t = await open(every("* * * * *", { topic: "orders, cron-function ,x" }));
    t.functions.push({
      id: { name: "b", namespace: "fn" },
      annotations: { topic: "cron-functions", schedule: "@hourly" },
    });
    t.functions.push({ id: { name: "c", namespace: "fn" }, annotations: { schedule: "* * * * *" } });
    t.pass(60_000);
    assert.deepEqual(
      t.calls.map((call) => call.id.name),
      ["web"],
    );
    assert.equal(t.cron.list("fn").length, 1);
  });

  test("several schedules: each counts, one instant of two counts once, faults are told and the rest goes on", async () => {
    await using t = await open(every("*/2 * * * *; 61 * * * * ;*/3 * * * *;; CRON_TZ=X/Y @daily"));
    t.pass(6 * 60_000); // 2, 3, 4 and 6 past
    assert.equal(t.calls.length, 4);
    const [{ schedules, problems }] = t.cron.list("fn") as [ReturnType<Cron["list"]>[number]];
    assert.deepEqual(
      schedules.map((s) => s.expression),
      ["*/2 * * * *", "*/3 * * * *"],
    );
    assert.equal(problems.length, 2);
    assert.match(problems[0]!, /^schedule: "61 \* \* \* \*"/);
    assert.match(problems[1]!, /X\/Y/);
  });

  test("words that it does not know are told, and what is usual holds", async () => {
    await using t = await open(every("", { "napd.cron.overlap": "never", "napd.cron.missed": "twice" }));
    const { problems, overlap, missed } = t.cron.list("fn")[0]!;
    assert.deepEqual([overlap, missed], ["allow", "skip"]);
    assert.match(problems.join("\n"), /overlap: "never".*\n.*missed: "twice".*\nschedule: .* missing/);
  });

  test("the annotation's time zone is that of all schedules that name none", async () => {
    await using t = await open(every("0 13 * * *;CRON_TZ=UTC 0 14 * * *", { "napd.cron.timezone": "Europe/Berlin" }));
    const next = t.cron.list("fn")[0]!.schedules.map((s) => new Date(s.next!).toISOString().slice(0, 16));
    assert.deepEqual(next, ["2026-03-02T12:00", "2026-03-01T14:00"]);
  });

  test("changes take effect at once; what stays goes on in its step", async () => {
    await using t = await open(every("@every 40s"));
    t.pass(30_000);
    t.functions[0] = { id, annotations: every("@every 40s;0 0 1 1 *") };
    t.pass(10_000);
    assert.equal(t.calls.length, 1);
    t.functions[0] = { id, annotations: every("@every 10s") };
    t.cron.tick();
    t.pass(10_000);
    assert.equal(t.calls.length, 2);
    t.functions[0] = { id, annotations: {} };
    t.pass(60_000);
    assert.deepEqual([t.calls.length, t.cron.list("fn")], [2, []]);
    t.functions[0] = { id, annotations: every("@every 5s") };
    t.cron.tick();
    t.functions.length = 0;
    t.pass(60_000);
    assert.equal(t.calls.length, 2);
  });

  test("a failure is remembered with its reason", async () => {
    await using t = await open(every("* * * * *"));
    t.answer = async () => ({ status: 503 });
    t.pass(30_000);
    await turn();
    t.answer = () => Promise.reject(new Error("no answer"));
    t.pass(60_000);
    await turn();
    assert.deepEqual(
      t.runs().map((run) => [run.result, run.status, run.error]),
      [
        ["failed", 503, "it answered 503"],
        ["failed", null, "no answer"],
      ],
    );
  });

  test("runs may overlap, unless the annotation says otherwise", async () => {
    for (const [overlap, count] of [
      ["allow", 3],
      ["skip", 1],
    ] as const) {
      await using t = await open(every("* * * * *", { "napd.cron.overlap": overlap }));
      t.holds = true;
      t.pass(150_000);
      assert.equal(t.calls.length, count);
      const later = overlap === "allow" ? "schedule running" : "schedule skipped";
      assert.deepEqual(t.results(), ["schedule running", later, later]);
      await t.finish();
      t.pass(60_000);
      assert.equal(t.calls.length, count + 1);
    }
  });

  test("a run by hand needs no schedule that can be read, and keeps to the overlap", async () => {
    await using t = await open(every("nonsense", { "napd.cron.overlap": "skip" }));
    t.holds = true;
    assert.equal(t.cron.run(id).result, "running");
    assert.throws(
      () => t.cron.run(id),
      (e) => isAppError(e, "CRON_RUNNING"),
    );
    await t.finish();
    assert.deepEqual(t.results(), ["manual ok"]);
    t.cron.run(id);
    assert.equal(t.calls.length, 2);
    assert.throws(
      () => t.cron.run({ name: "other", namespace: "fn" }),
      (e) => isAppError(e, "CRON_UNKNOWN"),
    );
  });

  test("goes through the queue where the annotation says so", async () => {
    for (const asked of ["true", "false"]) {
      await using t = await open(every("* * * * *", { "napd.cron.async": asked }));
      t.pass(30_000);
      assert.equal(t.calls[0]!.isAsync, asked === "true");
      assert.deepEqual(t.cron.problems(id), []);
    }
  });

  test("a run that goes on when napd stops has its time, then is ended and counts as failed", async () => {
    await using t = await open(every("* * * * *"));
    t.holds = true;
    t.pass(30_000);
    const ended = t.cron.end(5);
    assert.deepEqual(t.results(), ["schedule running"]);
    await ended;
    assert.deepEqual([t.results(), t.runs()[0]!.error], [["schedule failed"], "napd ended while it ran"]);
  });

  test("the last twenty runs are remembered, also by the next daemon", async () => {
    await using t = await open(every("@every 1s"));
    for (let i = 0; i < 30; i++) {
      t.pass(1000);
      await turn();
    }
    assert.equal(t.runs().length, 20);
    t.cron.tick(); // stores what has ended
    const before = t.runs();
    t.restart();
    assert.deepEqual(t.runs(), before);
  });

  test("a run that goes on is remembered, however many are skipped meanwhile", async () => {
    await using t = await open(every("@every 1s", { "napd.cron.overlap": "skip" }));
    t.holds = true;
    t.pass(40_000);
    assert.deepEqual(t.results(), ["schedule running", ...Array(19).fill("schedule skipped")]);
    assert.equal(t.calls.length, 1);
  });

  test("annotations that came again as they were change nothing", async () => {
    await using t = await open(every("@every 40s"));
    t.pass(30_000);
    t.functions[0] = { id, annotations: every("@every 40s") };
    t.pass(10_000);
    assert.equal(t.calls.length, 1);
  });

  test("what ran when napd ended has failed, and a function that is gone is forgotten", async () => {
    await using t = await open(every("* * * * *", { "napd.cron.overlap": "skip" }));
    t.holds = true;
    t.pass(30_000);
    t.restart();
    assert.deepEqual(
      t.runs().map((run) => [run.result, run.error]),
      [["failed", "napd ended while it ran"]],
    );
    const [fn] = t.functions.splice(0);
    t.restart();
    t.functions.push(fn!);
    t.restart();
    assert.deepEqual(t.runs(), []);
  });
});

suite("cron, when the clock is not what it was", () => {
  const rows: {
    says: string;
    schedule: string;
    missed?: string;
    /** Passes without being looked at. */
    gap: number;
    restart?: boolean;
    results: string[];
  }[] = [
    { says: "a pause of seconds is no pause", schedule: "* * * * *", gap: 35_000, results: ["schedule ok"] },
    {
      says: "a quick restart misses nothing",
      schedule: "* * * * *",
      gap: 35_000,
      restart: true,
      results: ["schedule ok"],
    },
    { says: "many seconds at once are one run", schedule: "* * * * * *", gap: 3_600_000, results: ["schedule ok"] },
    { says: "a missed hour is skipped", schedule: "0 * * * *", gap: 3_600_000, results: ["missed missed"] },
    { says: "a missed hour is made up", schedule: "0 * * * *", missed: "once", gap: 3_600_000, results: ["missed ok"] },
    {
      says: "a missed week is made up by one run",
      ...{ schedule: "0 * * * *", missed: "once", gap: 7 * 86_400_000, results: ["missed ok"] },
    },
    {
      says: "over a restart too",
      ...{ schedule: "0 * * * *;@daily", missed: "once", gap: 7 * 86_400_000, restart: true, results: ["missed ok"] },
    },
    {
      says: "skipped over a restart",
      ...{ schedule: "0 * * * *", gap: 7 * 86_400_000, restart: true, results: ["missed missed"] },
    },
    {
      says: "an interval goes on over a restart",
      ...{ schedule: "@every 1h", gap: 3_600_000, restart: true, results: ["schedule ok"] },
    },
    {
      says: "a missed interval is made up once",
      ...{ schedule: "@every 1h", missed: "once", gap: 5_400_000, restart: true, results: ["missed ok"] },
    },
  ];
  for (const { says, schedule, missed, gap, restart, results } of rows)
    test(says, async () => {
      await using t = await open(every(schedule, missed ? { "napd.cron.missed": missed } : {}));
      t.clock.pass(gap);
      if (restart) t.restart();
      else t.cron.tick();
      t.cron.tick();
      await turn();
      assert.deepEqual(t.results(), results);
      assert.equal(t.calls.length, results.filter((r) => r.endsWith("ok")).length);
    });

  test("set back by an hour: no instant comes twice; set back by a day: it goes on", async () => {
    await using t = await open(every("*/10 * * * *"), "2026-03-01T12:55:00Z");
    t.pass(5 * 60_000);
    assert.equal(t.calls.length, 1);
    t.clock.set("2026-03-01T12:00:00Z");
    t.pass(65 * 60_000);
    assert.equal(t.calls.length, 1);
    t.pass(5 * 60_000);
    assert.equal(t.calls.length, 2);
    t.clock.set("2026-02-28T13:00:00Z");
    t.cron.tick();
    t.pass(20 * 60_000);
    assert.equal(t.calls.length, 4);
  });

  test("an interval goes on in its step wherever the clock is set to", async () => {
    await using t = await open(every("@every 1m"));
    t.pass(60_000);
    for (const iso of ["2026-03-01T11:00:00Z", "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"]) {
      t.clock.set(iso);
      t.cron.tick();
      const before = t.calls.length;
      t.pass(180_000);
      assert.equal(t.calls.length, before + 3, iso);
    }
  });

  test("a day of every change of clocks has each hour once, and two o'clock once", async () => {
    for (const [start, hours] of [
      ["2026-03-28T23:00:00Z", 23],
      ["2026-10-24T22:00:00Z", 25],
    ] as const) {
      const zone = { "napd.cron.timezone": "Europe/Berlin" };
      await using hourly = await open(every("0 * * * *", zone), start);
      hourly.pass(hours * 3_600_000, 60_000);
      assert.equal(hourly.calls.length, hours);
      await using daily = await open(every("30 2 * * *", zone), start);
      daily.pass(hours * 3_600_000, 60_000);
      assert.equal(daily.calls.length, 1);
    }
  });
});
