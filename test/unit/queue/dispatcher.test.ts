import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { openLog } from "../../../src/base/log.ts";
import { emptyBody } from "../../../src/queue/bodies.ts";
import { Dispatcher, type DispatcherOptions } from "../../../src/queue/dispatcher.ts";
import { SqliteStore } from "../../../src/queue/sqlite.ts";
import { gate, until } from "../../fakes/platform.ts";
import { tmpDir } from "../../support/tmp.ts";

async function opened(attempt: DispatcherOptions["attempt"], concurrency = 2) {
  const dir = await tmpDir();
  const store = await SqliteStore.open(dir.path);
  const left: string[] = [];
  const dispatcher = new Dispatcher({
    ...{ store, attempt, clock: systemClock, log: openLog("silent") },
    concurrency: () => concurrency,
    discarded: () => {},
    left: ({ callId }, { to }) => void left.push(`${callId} ${to}`),
  });
  return {
    ...{ store, dispatcher, left },
    async put(callId: string, fn = "web.fn") {
      const plain = { lane: "call", target: "/", headers: [], body: emptyBody, callback: null } as const;
      await store.put({ ...plain, callId, fn, created: Date.now() });
      dispatcher.kick("call", fn);
    },
    async [Symbol.asyncDispose]() {
      await dispatcher.stop(0);
      await store[Symbol.asyncDispose]();
      await dir[Symbol.asyncDispose]();
    },
  };
}

suite("the dispatcher", () => {
  test("runs as many of a function as it may have, and the others besides", async () => {
    const held = gate();
    const begun: string[] = [];
    await using t = await opened(async ({ callId, fn }) => {
      begun.push(callId);
      if (fn === "slow.fn") await held.opened;
      return { to: "done" };
    });
    for (const id of ["s1", "s2", "s3"]) await t.put(id, "slow.fn");
    for (const id of ["q1", "q2", "q3", "q4"]) await t.put(id, "quick.fn");
    await until("the quick ones are done", () => t.left.length === 4);
    assert.deepEqual(
      begun.filter((id) => id.startsWith("s")),
      ["s1", "s2"],
    );
    held.open();
    await until("all are done", () => t.left.length === 7);
    assert.deepEqual(await t.store.depths(), []);
  });

  test("tries again when it is due, without anybody's help", async () => {
    const attempts: number[] = [];
    await using t = await opened(async (message) => {
      attempts.push(message.attempts);
      if (message.attempts === 4) return { to: "dead", status: 500 };
      return { to: "queued", due: Date.now() + (message.attempts % 2 ? 15 : -5) };
    });
    await t.put("a");
    await until("it is given up", () => t.left.length === 1);
    assert.deepEqual([attempts, t.left], [[1, 2, 3, 4], ["a dead"]]);
  });

  test("one that waits long does not hold up one that is due sooner", async () => {
    const waits: Record<string, number> = { a: 3_600_000, b: 20 };
    await using t = await opened(async ({ callId, attempts }) =>
      attempts > 1 ? { to: "done" } : { to: "queued", due: Date.now() + waits[callId]! },
    );
    await t.put("a");
    await t.put("b");
    await until("the second is done", () => t.left.length === 1);
    assert.deepEqual(t.left, ["b done"]);
  });

  test("ends what is cancelled, and its outcome does not count", async () => {
    const running = gate();
    await using t = await opened(async (_message, signal) => {
      running.open();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return { to: "dead" };
    });
    await t.put("a");
    await running.opened;
    t.dispatcher.abort((await t.store.remove("a")).map(({ seq }) => seq));
    await until("nothing runs", () => t.dispatcher.inFlight().every(({ running: n }) => n === 0));
    assert.deepEqual([t.left, await t.store.depths()], [[], []]);
  });

  test("that stops leaves what runs for the next start", async () => {
    const running = gate();
    await using t = await opened(async (_message, signal) => {
      running.open();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return { to: "done" };
    });
    await t.put("a");
    await running.opened;
    await t.dispatcher.stop(0);
    const [info] = await t.store.list({ limit: 1 });
    assert.deepEqual([info?.callId, info?.state, t.left], ["a", "running", []]);
  });
});
