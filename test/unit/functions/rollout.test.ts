/** What becomes of functions: the real store and rollout on the fake backend, whose replicas are real HTTP servers. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { systemClock } from "../../../src/base/clock.ts";
import { AppError, type ErrorCode, isAppError } from "../../../src/base/errors.ts";
import type { FakeBackend, Program } from "../../fakes/backend.ts";
import { fastClock, LeapingClock } from "../../fakes/clock.ts";
import { gate, namespace, openPlatform, type Platform, type PlatformOptions, until } from "../../fakes/platform.ts";

const id = (name: string) => ({ name, namespace });
const replica = (name: string, generation: number, number = 0) => ({ name, namespace, generation, number });
const code =
  (wanted: ErrorCode, text: RegExp = /./) =>
  (e: unknown) =>
    isAppError(e, wanted) && text.test(e.message);
const never = new Promise<void>(() => {});

/** Ways of a version not to serve, as programs, with what the deploy is told. */
const duds: { says: string; program: Program; body?: object; code: ErrorCode; text: RegExp }[] = [
  { says: "cannot be started", program: { broken: "no such file" }, code: "START_FAILED", text: /no such file/ },
  {
    says: "exits before it is ready",
    program: { exitsWith: 7, says: "cannot open config.yml" },
    code: "REPLICA_EXITED",
    text: /code 7.*cannot open config\.yml/,
  },
  {
    says: "answers its readiness path with an error",
    program: { answer: (_, res) => void res.writeHead(503).end(), says: "no database" },
    body: { annotations: { "com.openfaas.ready.http.path": "/ready" } },
    code: "REPLICA_NOT_READY",
    text: /GET \/ready answered 503; its last output: no database/,
  },
  {
    says: "never listens",
    program: { listens: never, says: "waiting for a database" },
    code: "REPLICA_NOT_READY",
    text: /0\.2 s.*waiting for a database.*functions\.ready_timeout/s,
  },
];

/** A platform with `web` deployed from web:1 and serving. */
async function openWithWeb(body: object = {}, options: PlatformOptions = {}): Promise<Platform> {
  const p = await openPlatform(options);
  p.backend.push("web:1");
  await p.create({ service: "web", image: "web:1", ...body });
  return p;
}

const max = (n: number) => ({ labels: { "com.openfaas.scale.max": String(n) } });
const min = (n: number) => ({ labels: { "com.openfaas.scale.min": String(n) } });

/** Runs `work` and looks, in every turn of the event loop meanwhile, whether somebody is routable. */
async function neverUnroutable<T>(p: Platform, name: string, work: Promise<T>): Promise<T> {
  let done = false;
  const end = work.finally(() => {
    done = true;
  });
  end.catch(() => {});
  while (!done) {
    assert.notDeepEqual(p.routable(name), [], `nobody of ${name} could be sent a request`);
    await turn();
  }
  return end;
}

/** Replicas that the backend holds, by id. */
async function replicas(backend: FakeBackend): Promise<string[]> {
  return (await backend.list()).map((r) => `${r.name}.${r.generation}.${r.number} ${r.condition}`).sort();
}

suite("a new function", () => {
  test("serves when its deploy resolves", async () => {
    await using p = await openWithWeb();
    assert.deepEqual(await p.call("web"), { status: 200, text: "web:1" });
    const status = p.status("web")!;
    assert.deepEqual(
      [status.state, status.replicas, status.availableReplicas, status.reason],
      ["Ready", 1, 1, undefined],
    );
  });

  test("is not available before it listens; callers wait for it", async () => {
    await using p = await openPlatform();
    const { opened, open } = gate();
    p.backend.push("slow:1", { listens: opened });
    const deployed = p.create({ service: "slow", image: "slow:1" });
    await until("it is being started", () => p.backend.count("start") === 1);
    assert.deepEqual([p.status("slow")!.state, p.status("slow")!.availableReplicas], ["Deploying", 0]);
    const called = p.call("slow");
    open();
    assert.equal(await deployed, "serving");
    assert.deepEqual(await called, { status: 200, text: "slow:1" });
  });

  test("with a least number of replicas serves when all of them are ready", async () => {
    await using p = await openWithWeb(min(3));
    assert.deepEqual(p.routable("web"), ["web.1.0", "web.1.1", "web.1.2"]);
  });

  for (const dud of duds)
    test(`that ${dud.says} is Failed with the reason, and its deploy rejects with it`, async () => {
      await using p = await openPlatform({ readyTimeoutMs: 200 });
      p.backend.push("dud:1", dud.program);
      await assert.rejects(p.create({ service: "dud", image: "dud:1", ...dud.body }), code(dud.code, dud.text));
      const status = p.status("dud")!;
      assert.deepEqual([status.state, status.availableReplicas], ["Failed", 0]);
      assert.match(status.reason!, dud.text);
    });

  test("that fails is tried again at once, then after half a second", async () => {
    await using p = await openPlatform();
    p.backend.push("dud:1", { broken: "no such file" });
    const starts: number[] = [];
    const start = p.backend.start.bind(p.backend);
    p.backend.start = (spec, signal) => {
      starts.push(performance.now());
      return start(spec, signal);
    };
    await assert.rejects(p.create({ service: "dud", image: "dud:1" }));
    await until("three starts", () => starts.length === 3);
    const [first, second, third] = starts as [number, number, number];
    assert.ok(second - first < 400, `${second - first} ms to the second start`);
    assert.ok(third - second > 480, `${third - second} ms to the third start`);
  });

  test("that failed serves as soon as its cause is gone, and nothing of the failure stays in its status", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1");
    p.backend.failNext("start", new AppError("START_FAILED", ["web.1.0", "no addresses left"]));
    await assert.rejects(p.create({ service: "web", image: "web:1" }), code("START_FAILED"));
    await until("it serves", () => p.status("web")!.state === "Ready");
    assert.equal(p.status("web")!.reason, undefined);
    assert.equal(p.store.get(id("web"))!.failure, null);
    assert.equal((await p.call("web")).status, 200);
  });

  const refusals: { says: string; body: object; code: ErrorCode }[] = [
    { says: "an unknown image", body: { image: "none:1" }, code: "IMAGE_NOT_FOUND" },
    { says: "an unknown namespace", body: { namespace: "elsewhere" }, code: "NAMESPACE_NOT_FOUND" },
    { says: "a missing secret", body: { secrets: ["here", "not-here"] }, code: "SECRET_MISSING" },
    {
      says: "a label that makes no sense",
      body: { labels: { "com.openfaas.scale.min": "many" } },
      code: "BAD_FUNCTION",
    },
    { says: "a name that is taken", body: { service: "taken" }, code: "FUNCTION_EXISTS" },
  ];
  for (const row of refusals)
    test(`with ${row.says} is refused and leaves nothing`, async () => {
      await using p = await openPlatform();
      await p.secrets.put(namespace, "here", Buffer.from("x"));
      p.backend.push("web:1");
      await p.create({ service: "taken", image: "web:1" });
      const [before, rows] = [p.backend.holds(), p.store.list()];
      await assert.rejects(p.create({ service: "web", image: "web:1", ...row.body }), code(row.code));
      assert.deepEqual([p.backend.holds(), p.store.list()], [before, rows]);
    });

  test("of which two are made at once is made once, and the other is told that it exists", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1");
    const outcomes = await Promise.allSettled([1, 2].map(() => p.create({ service: "web", image: "web:1" })));
    assert.deepEqual(outcomes.map((o) => o.status).sort(), ["fulfilled", "rejected"]);
    assert.ok(outcomes.some((o) => o.status === "rejected" && isAppError(o.reason, "FUNCTION_EXISTS")));
    assert.equal((await p.call("web")).status, 200);
    assert.deepEqual(await replicas(p.backend), ["web.1.0 running"]);
  });
});

suite("an update", () => {
  test("leaves the old version serving until the new one is ready, then switches", async () => {
    await using p = await openWithWeb();
    const { opened, open } = gate();
    p.backend.push("web:2", { listens: opened });
    const updated = neverUnroutable(p, "web", p.update({ service: "web", image: "web:2" }));
    await until("the new one is being started", () => p.backend.count("start web.2") === 1);
    for (let i = 0; i < 20; i++) assert.equal((await p.call("web")).text, "web:1");
    assert.deepEqual([p.status("web")!.state, p.status("web")!.availableReplicas], ["Deploying", 1]);
    open();
    await updated;
    assert.equal((await p.call("web")).text, "web:2");
    await until("the old one is gone", async () => (await replicas(p.backend)).join() === "web.2.0 running");
  });

  test("under load loses no request", async () => {
    await using p = await openWithWeb(min(2));
    const seen = new Set<string>();
    let stop = false;
    const callers = Array.from({ length: 8 }, async () => {
      while (!stop) {
        const { status, text } = await p.call("web");
        assert.equal(status, 200, text);
        seen.add(text);
      }
    });
    for (let version = 2; version <= 6; version++) {
      p.backend.push(`web:${version}`);
      await neverUnroutable(p, "web", p.update({ service: "web", image: `web:${version}`, ...min(2) }));
    }
    stop = true;
    await Promise.all(callers);
    assert.ok(seen.has("web:1") && seen.has("web:6"), [...seen].join());
  });

  test("waits for the old version's requests before it stops it", async () => {
    await using p = await openPlatform();
    const { opened, open } = gate();
    p.backend.push("web:1", { answer: (_, res) => void opened.then(() => res.end("late, but whole")) });
    await p.create({ service: "web", image: "web:1" });
    const called = p.call("web");
    await until("the request is there", () => p.table.get("web.fn")!.routable[0]!.inFlight === 1);
    p.backend.push("web:2");
    await p.update({ service: "web", image: "web:2" });
    assert.equal((await p.call("web")).text, "web:2");
    assert.equal(p.backend.count("stop"), 0);
    open();
    assert.deepEqual(await called, { status: 200, text: "late, but whole" });
    await until("the old one is stopped", () => p.backend.count("stop web.1.0") === 1);
  });

  test("does not wait longer than the grace for the old version's requests", async () => {
    await using p = await openPlatform({ graceMs: 100 });
    p.backend.push("web:1", { answer: () => {} });
    await p.create({ service: "web", image: "web:1" });
    const called = p.call("web");
    await until("the request is there", () => p.table.get("web.fn")!.routable[0]!.inFlight === 1);
    p.backend.push("web:2");
    await p.update({ service: "web", image: "web:2" });
    assert.equal((await called).status, 502);
    await until("the old one is gone", async () => (await replicas(p.backend)).join() === "web.2.0 running");
  });

  for (const dud of duds)
    test(`to a version that ${dud.says} fails with the reason, and the old one goes on serving`, async () => {
      await using p = await openWithWeb({}, { readyTimeoutMs: 200 });
      p.backend.push("web:2", dud.program);
      const updated = p.update({ service: "web", image: "web:2", ...dud.body });
      await assert.rejects(neverUnroutable(p, "web", updated), code(dud.code, dud.text));
      assert.equal((await p.call("web")).text, "web:1");
      const status = p.status("web")!;
      assert.deepEqual([status.state, status.image, status.availableReplicas], ["Ready", "web:1", 1]);
      assert.match(status.reason!, /update failed/);
      assert.match(status.reason!, dud.text);
      assert.equal(p.store.get(id("web"))!.previous, null);
      await until("nothing is left of the failed one", () => !p.backend.holds().some((h) => /web:2|web\.2/.test(h)));
    });

  test("that fails is not tried again, and its reason stays until the next one", async () => {
    await using p = await openWithWeb();
    p.backend.push("web:2", { broken: "no such file" });
    await assert.rejects(p.update({ service: "web", image: "web:2" }));
    p.backend.push("web:3", { exitsWith: 3 });
    await assert.rejects(p.update({ service: "web", image: "web:3" }));
    assert.equal(p.backend.count("start web.2"), 1);
    assert.match(p.status("web")!.reason!, /code 3/);
    p.backend.push("web:4");
    await p.update({ service: "web", image: "web:4" });
    assert.equal(p.status("web")!.reason, undefined);
  });

  test("that fails just after the serving version crashed goes back to that version all the same", async () => {
    await using p = await openWithWeb();
    p.backend.push("web:2", { broken: "no such file" });
    const { opened, open } = gate();
    p.backend.gate = opened;
    await p.backend.crash(replica("web", 1), 139);
    await until("its loss is known", () => p.routable("web").length === 0);
    const updated = p.update({ service: "web", image: "web:2" });
    await until("the update is stored", () => p.store.get(id("web"))!.generation === 2);
    open();
    await assert.rejects(updated);
    assert.deepEqual(await p.call("web"), { status: 200, text: "web:1" });
  });

  test("of several replicas switches only when all of the new ones are ready", async () => {
    await using p = await openWithWeb(min(3));
    const { opened, open } = gate();
    p.backend.push("web:2", {
      answer: (_, res, spec) => void res.end(`new ${spec.number}`),
      listens: opened,
    });
    const updated = neverUnroutable(p, "web", p.update({ service: "web", image: "web:2", ...min(3) }));
    await until("all of them are being started", () => p.backend.count("start web.2") === 3);
    assert.deepEqual(p.routable("web"), ["web.1.0", "web.1.1", "web.1.2"]);
    open();
    await updated;
    assert.deepEqual(p.routable("web"), ["web.2.0", "web.2.1", "web.2.2"]);
  });

  test("overtaken by a newer one is told so, and leaves nothing", async () => {
    await using p = await openWithWeb();
    p.backend.push("web:2", { listens: never });
    const overtaken = assert.rejects(p.update({ service: "web", image: "web:2" }), code("SUPERSEDED"));
    await until("the second one is being started", () => p.backend.count("start web.2") === 1);
    p.backend.push("web:3");
    await neverUnroutable(p, "web", p.update({ service: "web", image: "web:3" }));
    await overtaken;
    assert.equal((await p.call("web")).text, "web:3");
    await until("only the third is left", async () => (await replicas(p.backend)).join() === "web.3.0 running");
    await until("its image too", () => [...p.backend.pins].join() === [...p.backend.pins].find((x) => /web:3/.test(x)));
  });

  test("overtaken by one that fails goes back to the version that served before both", async () => {
    await using p = await openWithWeb();
    p.backend.push("web:2", { listens: never });
    const overtaken = assert.rejects(p.update({ service: "web", image: "web:2" }), code("SUPERSEDED"));
    await until("the second one is being started", () => p.backend.count("start web.2") === 1);
    p.backend.push("web:3", { broken: "no such file" });
    await assert.rejects(p.update({ service: "web", image: "web:3" }), code("START_FAILED"));
    await overtaken;
    assert.deepEqual([(await p.call("web")).text, p.status("web")!.image], ["web:1", "web:1"]);
  });

  test("of a function that never served takes its place, whatever the reason was", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1", { broken: "no such file" });
    await assert.rejects(p.create({ service: "web", image: "web:1" }));
    const { opened, open } = gate();
    p.backend.push("web:2", { listens: opened });
    const updated = p.update({ service: "web", image: "web:2" });
    await until("the new one is being started", () => p.backend.count("start web.2") === 1);
    assert.deepEqual([p.status("web")!.state, p.status("web")!.reason], ["Deploying", undefined]);
    open();
    await updated;
    assert.equal((await p.call("web")).text, "web:2");
  });

  test("of a function without replicas starts it, so that what is wrong with the new version shows now", async () => {
    await using p = await openWithWeb();
    await p.functions().scale(id("web"), 0);
    p.backend.push("web:2", { broken: "no such file" });
    await assert.rejects(p.update({ service: "web", image: "web:2" }), code("START_FAILED"));
    assert.equal((await p.call("web")).text, "web:1");
    p.backend.push("web:3");
    await p.update({ service: "web", image: "web:3" });
    assert.equal((await p.call("web")).text, "web:3");
  });

  test("keeps the number of replicas that was asked for", async () => {
    await using p = await openWithWeb();
    await p.functions().scale(id("web"), 2);
    await until("two serve", () => p.routable("web").length === 2);
    p.backend.push("web:2");
    await p.update({ service: "web", image: "web:2" });
    assert.deepEqual(p.routable("web"), ["web.2.0", "web.2.1"]);
  });

  test("to the same image with other settings keeps the image", async () => {
    await using p = await openWithWeb();
    await p.update({ service: "web", image: "web:1", envVars: { A: "b" } });
    await until("the old one is gone", async () => (await replicas(p.backend)).join() === "web.2.0 running");
    assert.equal(p.backend.count("release"), 0);
    assert.equal(p.backend.pins.size, 1);
  });

  test("of an unknown function is refused", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1");
    await assert.rejects(p.update({ service: "web", image: "web:1" }), code("FUNCTION_NOT_FOUND"));
    assert.deepEqual(p.backend.holds(), []);
  });
});

suite("a replica that is lost", () => {
  test("is replaced, and callers wait meanwhile instead of failing", async () => {
    await using p = await openWithWeb();
    const { opened, open } = gate();
    p.backend.gate = opened;
    await p.backend.crash(replica("web", 1), 139);
    await until("its loss is known", () => p.routable("web").length === 0);
    const called = p.call("web");
    open();
    assert.deepEqual(await called, { status: 200, text: "web:1" });
    assert.equal(p.status("web")!.state, "Ready");
    assert.equal(p.status("web")!.reason, undefined);
  });

  test("leaves the others serving, and the status says Degraded and why", async () => {
    await using p = await openWithWeb(min(2));
    const { opened, open } = gate();
    p.backend.gate = opened;
    await p.backend.crash(replica("web", 1, 1), 139);
    await until("it is known", () => p.routable("web").length === 1);
    assert.equal(p.status("web")!.state, "Degraded");
    assert.match(p.status("web")!.reason!, /web\.1\.1 exited with code 139/);
    open();
    await until("both serve again", () => p.routable("web").length === 2);
    assert.equal(p.status("web")!.state, "Ready");
  });

  test("for want of memory says so, with the limit", async () => {
    await using p = await openWithWeb({ limits: { memory: "64Mi" } });
    p.backend.gate = never;
    await p.backend.crash(replica("web", 1), 137, true);
    await until("it is known", () => p.status("web")!.state === "Failed");
    assert.match(p.status("web")!.reason!, /memory limit \(64Mi\)/);
  });

  test("time and again makes callers hear the reason at once instead of waiting", async () => {
    await using p = await openPlatform();
    p.backend.push("dud:1", { exitsWith: 3, says: "out of luck" });
    await assert.rejects(p.create({ service: "dud", image: "dud:1" }));
    const waiting = await p.call("dud"); // came before the patience was over
    assert.deepEqual([waiting.status, /out of luck/.test(waiting.text)], [503, true]);
    const begin = performance.now();
    const later = await p.call("dud");
    assert.deepEqual([later.status, /out of luck/.test(later.text)], [503, true]);
    assert.ok(performance.now() - begin < 1000);
  });

  test("after a long good time is replaced at once, as if it were the first", async () => {
    const clock = new LeapingClock(systemClock);
    await using p = await openWithWeb({}, { clock });
    for (let i = 1; i <= 5; i++) {
      clock.leap(31_000);
      await p.backend.crash(replica("web", 1), 1);
      await until("it was started again", () => p.backend.count("start web.1.0") === i + 1, 400);
      await until("it serves", () => p.routable("web").length === 1);
    }
  });

  test("shortly after its start is replaced ever more slowly", async () => {
    await using p = await openWithWeb();
    await p.backend.crash(replica("web", 1), 1);
    await until("it serves again", () => p.backend.count("start") === 2 && p.routable("web").length === 1);
    const begin = performance.now();
    await p.backend.crash(replica("web", 1), 1);
    await until("it serves again", () => p.backend.count("start") === 3 && p.routable("web").length === 1);
    assert.ok(performance.now() - begin > 480, `replaced after ${performance.now() - begin} ms`);
  });

  test("while the backend could not tell is noticed when it says that it has missed something", async () => {
    await using p = await openWithWeb();
    await p.backend.lose(replica("web", 1));
    p.backend.gap();
    await until("it was started again", () => p.backend.count("start web.1.0") === 2);
    assert.equal((await p.call("web")).status, 200);
  });

  test("and cannot be removed is removed later, and only then started again", async () => {
    await using p = await openWithWeb();
    p.backend.failNext("stop", new AppError("STOP_FAILED", ["web.1.0", "device busy"]));
    await p.backend.crash(replica("web", 1), 1);
    await until("it serves again", () => p.backend.count("start") === 2 && p.routable("web").length === 1);
    assert.equal(p.backend.count("stop web.1.0"), 2);
  });

  test("leaves the number of restarts, the reason and the exit code in the status, until the next version", async () => {
    await using p = await openWithWeb();
    assert.equal(p.status("web")!.restarts, undefined);
    await p.backend.crash(replica("web", 1), 139);
    await until("it serves again", () => p.status("web")!.restarts === 1 && p.routable("web").length === 1);
    await p.backend.crash(replica("web", 1), 137, true);
    await until("it serves again", () => p.status("web")!.restarts === 2 && p.routable("web").length === 1);
    const { lastFailure, state, reason } = p.status("web")!;
    assert.deepEqual([lastFailure!.exitCode, state, reason], [137, "Ready", undefined]);
    assert.match(lastFailure!.reason, /ran out of its memory limit/);
    assert.ok(Math.abs(Date.parse(lastFailure!.at) - Date.now()) < 60_000);
    await p.update({ service: "web", image: "web:1" });
    assert.equal(p.status("web")!.restarts, undefined);
  });

  test("because its health check fails is replaced, and says so", async () => {
    const clock = fastClock(systemClock, 50);
    await using p = await openPlatform({ clock, readyTimeoutMs: 60_000, graceMs: 60_000 });
    let ill = false;
    p.backend.push("web:1", { answer: (_, res) => void res.writeHead(ill ? 500 : 200).end("fine") });
    const annotations = {
      "com.openfaas.health.http.path": "/health",
      "com.openfaas.health.http.periodSeconds": "1",
      "com.openfaas.health.http.timeoutSeconds": "30",
    };
    await p.create({ service: "web", image: "web:1", annotations });
    ill = true;
    await until("it is replaced", () => p.backend.count("start web.1.0") === 2);
    assert.match(p.status("web")!.lastFailure!.reason, /health check 3 times in a row \(GET \/health answered 500\)/);
    ill = false;
    assert.deepEqual(await p.call("web"), { status: 200, text: "fine" });
  });

  test("is not one that is not ready for now: callers go elsewhere, or wait", async () => {
    const clock = fastClock(systemClock, 50);
    await using p = await openPlatform({ clock, readyTimeoutMs: 60_000, graceMs: 60_000 });
    const busy = new Set<number>();
    p.backend.push("web:1", {
      answer: (req, res, { number }) =>
        void res.writeHead(req.url === "/ready" && busy.has(number) ? 429 : 200).end(String(number)),
    });
    const annotations = {
      "com.openfaas.ready.http.path": "/ready",
      "com.openfaas.ready.http.periodSeconds": "1",
      "com.openfaas.ready.http.timeoutSeconds": "30",
    };
    await p.create({ service: "web", image: "web:1", annotations, ...min(2) });
    busy.add(0);
    await until("one is out", () => p.routable("web").join() === "web.1.1");
    assert.deepEqual([p.status("web")!.state, p.status("web")!.availableReplicas], ["Degraded", 1]);
    assert.match(p.status("web")!.reason!, /web\.1\.0 is not ready: GET \/ready answered 429/);
    assert.equal((await p.call("web")).text, "1");
    busy.add(1);
    await until("both are out", () => p.routable("web").length === 0);
    const called = p.call("web");
    busy.clear();
    assert.equal((await called).status, 200);
    await until("both are in", () => p.routable("web").length === 2);
    assert.equal(p.backend.count("start"), 2);
  });

  test("together with its image is started from the image fetched anew", async () => {
    await using p = await openWithWeb();
    const [pin] = p.backend.pins;
    p.backend.pins.clear();
    await p.backend.crash(replica("web", 1), 1);
    await until("it serves again", () => p.backend.count("start") >= 2 && p.routable("web").length === 1);
    assert.deepEqual([...p.backend.pins], [pin]);
  });
});

suite("a gap in what the backend tells", () => {
  test("does not take a replica for lost that is just being started", async () => {
    await using p = await openPlatform();
    const { opened, open } = gate();
    p.backend.push("web:1");
    p.backend.gate = opened;
    const deployed = p.create({ service: "web", image: "web:1" });
    await until("it is being started", () => p.backend.count("start") === 1);
    const lists = p.backend.count("list");
    p.backend.gap();
    await until("it has been looked for", () => p.backend.count("list") > lists);
    await turn();
    open();
    assert.equal(await deployed, "serving");
    assert.equal(p.backend.count("start"), 1);
  });

  test("brings up replicas that belong to nobody: they are removed", async () => {
    await using p = await openWithWeb();
    for (const stranger of [replica("web", 77, 3), replica("unknown", 5)])
      await p.backend.start({
        ...stranger,
        image: [...p.backend.pins][0]!,
        env: {},
        secrets: [],
        readOnlyRoot: false,
        watchdog: "auto",
      });
    p.backend.gap();
    await until("only ours is left", async () => (await replicas(p.backend)).join() === "web.1.0 running");
    assert.equal((await p.call("web")).status, 200);
  });

  test("does not cut the requests of a function that is being deleted", async () => {
    await using p = await openPlatform();
    const { opened, open } = gate();
    p.backend.push("web:1", { answer: (_, res) => void opened.then(() => res.end("whole")) });
    await p.create({ service: "web", image: "web:1" });
    const called = p.call("web");
    await until("the request is there", () => p.table.get("web.fn")!.routable[0]!.inFlight === 1);
    const removed = p.functions().remove(id("web"));
    const lists = p.backend.count("list");
    p.backend.gap();
    await until("it has been looked at", () => p.backend.count("list") > lists);
    await p.rollout().reconcile();
    assert.equal(p.backend.count("stop"), 0);
    open();
    assert.deepEqual(await called, { status: 200, text: "whole" });
    await removed;
  });

  test("with a backend that cannot list is survived", async () => {
    await using p = await openWithWeb();
    p.backend.failNext("list", new AppError("CONTAINERD_UNAVAILABLE", ["/nowhere"]));
    await p.rollout().reconcile();
    await p.backend.lose(replica("web", 1));
    await p.rollout().reconcile();
    assert.equal((await p.call("web")).status, 200);
  });
});

suite("scaling", () => {
  test("from one to three and back changes who serves, and nobody else", async () => {
    await using p = await openWithWeb();
    await p.functions().scale(id("web"), 3);
    assert.equal(p.status("web")!.replicas, 3);
    await until("three serve", () => p.routable("web").length === 3);
    assert.deepEqual(p.routable("web"), ["web.1.0", "web.1.1", "web.1.2"]);
    assert.equal(p.backend.count("start web.1.0"), 1);
    await neverUnroutable(p, "web", p.functions().scale(id("web"), 1));
    assert.deepEqual(p.routable("web"), ["web.1.0"]);
    await until("two are gone", async () => (await replicas(p.backend)).join() === "web.1.0 running");
  });

  test("up and at once down again ends with what was asked last", async () => {
    await using p = await openWithWeb();
    for (const count of [3, 1, 3, 2]) await p.functions().scale(id("web"), count);
    await until("two are there", async () => (await replicas(p.backend)).join() === "web.1.0 running,web.1.1 running");
    await until("two serve", () => p.routable("web").length === 2);
    assert.deepEqual([p.status("web")!.state, p.status("web")!.reason], ["Ready", undefined]);
  });

  test("stops at the function's maximum", async () => {
    await using p = await openWithWeb(max(2));
    await p.functions().scale(id("web"), 50);
    assert.equal(p.status("web")!.replicas, 2);
  });

  test("to zero takes everything down; the status says Stopped", async () => {
    await using p = await openWithWeb();
    await p.functions().scale(id("web"), 0);
    assert.deepEqual(
      [p.status("web")!.state, p.status("web")!.replicas, p.status("web")!.availableReplicas],
      ["Stopped", 0, 0],
    );
    await until("nothing runs", async () => (await replicas(p.backend)).length === 0);
  });

  test("of an unknown function is refused", async () => {
    await using p = await openPlatform();
    await assert.rejects(p.functions().scale(id("nobody"), 1), code("FUNCTION_NOT_FOUND"));
  });

  test("up by a replica that cannot start leaves the others serving", async () => {
    await using p = await openWithWeb();
    p.backend.failNext("start", new AppError("START_FAILED", ["web.1.1", "no addresses left"]));
    await neverUnroutable(p, "web", p.functions().scale(id("web"), 2));
    await until("two serve", () => p.routable("web").length === 2);
    assert.equal(p.status("web")!.reason, undefined);
  });

  test("down while a start is under way is not taken for a failure, whatever the start says when it is given up", async () => {
    await using p = await openWithWeb();
    const start = p.backend.start.bind(p.backend);
    p.backend.start = async (spec, signal) => {
      if (spec.number === 0) return start(spec, signal);
      await new Promise((resolve) => signal!.addEventListener("abort", resolve));
      throw new AppError("HOST_COMMAND", ["ip netns add", "killed"]);
    };
    await p.functions().scale(id("web"), 2);
    await p.functions().scale(id("web"), 1);
    await until("it is gone", () => p.status("web")!.state === "Ready");
    assert.deepEqual([p.status("web")!.reason, p.store.get(id("web"))!.failure], [undefined, null]);
  });
});

suite("a function without replicas", () => {
  test("wakes once for 1,000 callers, and all of them are answered", async () => {
    await using p = await openWithWeb();
    await p.functions().scale(id("web"), 0);
    await until("it sleeps", async () => (await replicas(p.backend)).length === 0);
    const answers = await Promise.all(Array.from({ length: 1000 }, () => p.call("web")));
    assert.equal(answers.filter((a) => a.status === 200 && a.text === "web:1").length, 1000);
    assert.equal(p.backend.count("start"), 2); // one of them was the deploy's
    assert.equal(p.status("web")!.replicas, 1);
  });

  test("wakes to its least number of replicas", async () => {
    await using p = await openWithWeb(min(2));
    await p.functions().scale(id("web"), 0);
    assert.equal((await p.call("web")).status, 200);
    assert.equal(p.status("web")!.replicas, 2);
  });

  test("that is called while its last replica still leaves is answered too", async () => {
    await using p = await openWithWeb();
    await p.functions().scale(id("web"), 0);
    assert.deepEqual(await p.call("web"), { status: 200, text: "web:1" });
  });

  test("that failed before it was scaled to zero is tried anew by the next call", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1");
    for (let i = 0; i < 3; i++) p.backend.failNext("start", new AppError("START_FAILED", ["web.1.0", "disk full"]));
    await assert.rejects(p.create({ service: "web", image: "web:1" }));
    await until("patience is over", () => p.backend.count("start") === 3);
    assert.equal((await p.call("web")).status, 503);
    await p.functions().scale(id("web"), 0);
    assert.deepEqual(await p.call("web"), { status: 200, text: "web:1" });
  });
});

suite("a function asleep", () => {
  test("is thawed once for 100 callers, and counts as available meanwhile", async () => {
    await using p = await openWithWeb();
    assert.ok(await p.table.get("web.fn")!.routable[0]!.fallAsleep(p.backend));
    assert.equal(p.status("web")!.state, "Asleep");
    assert.equal(p.status("web")!.availableReplicas, 1);
    const answers = await Promise.all(Array.from({ length: 100 }, () => p.call("web")));
    assert.ok(answers.every((a) => a.status === 200));
    assert.equal(p.backend.count("thaw"), 1);
  });

  test("whose thaw fails is thawed once more; only if it fails time after time, the caller is told why", async () => {
    await using p = await openWithWeb();
    await p.table.get("web.fn")!.routable[0]!.fallAsleep(p.backend);
    for (let i = 0; i < 5; i++) p.backend.failNext("thaw", new Error("EBUSY"));
    const { status, text } = await p.call("web");
    assert.deepEqual([status, /could not be woken: EBUSY/.test(text)], [503, true]);
    p.backend.failNext("thaw", new Error("EBUSY"));
    assert.equal((await p.call("web")).status, 200);
  });
});

suite("a delete", () => {
  test("waits for the requests under way, refuses new ones, and leaves nothing", async () => {
    await using p = await openPlatform();
    const { opened, open } = gate();
    p.backend.push("web:1", { answer: (_, res) => void opened.then(() => res.end("whole")) });
    await p.create({ service: "web", image: "web:1" });
    const called = p.call("web");
    await until("the request is there", () => p.table.get("web.fn")!.routable[0]!.inFlight === 1);
    const removed = p.functions().remove(id("web"));
    await until("it is out of the table", () => !p.table.has("web.fn"));
    assert.equal((await p.call("web")).status, 404);
    assert.equal(p.status("web"), undefined);
    open();
    assert.deepEqual(await called, { status: 200, text: "whole" });
    await removed;
    assert.deepEqual(p.backend.holds(), []);
    assert.deepEqual(p.store.list(), []);
  });

  test("while a deploy is under way ends the deploy, and leaves nothing", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1", { listens: never });
    const deployed = assert.rejects(p.create({ service: "web", image: "web:1" }), code("FUNCTION_NOT_FOUND"));
    await until("it is being started", () => p.backend.count("start") === 1);
    await p.functions().remove(id("web"));
    await deployed;
    assert.deepEqual(p.backend.holds(), []);
  });

  test("tells callers that wait for the function that it does not exist any more", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1", { listens: never });
    const deployed = p.create({ service: "web", image: "web:1" }).catch(() => {});
    await until("it is being started", () => p.backend.count("start") === 1);
    const called = p.call("web");
    await until("the caller waits", async () => (await p.rollout().observe(id("web")))!.starting);
    await turn();
    await p.functions().remove(id("web"));
    assert.equal((await called).status, 404);
    await deployed;
  });

  test("makes room at once for a function of the same name, which keeps its logs", async () => {
    await using p = await openPlatform();
    const { opened, open } = gate();
    p.backend.push("web:1", { answer: (_, res) => void opened.then(() => res.end("old")) });
    p.backend.push("web:2", { says: "new" });
    await p.create({ service: "web", image: "web:1" });
    const called = p.call("web");
    await until("the request is there", () => p.table.get("web.fn")!.routable[0]!.inFlight === 1);
    const removed = p.functions().remove(id("web"));
    await until("it is out of the table", () => !p.table.has("web.fn"));
    await p.create({ service: "web", image: "web:2" });
    assert.equal((await p.call("web")).text, "web:2");
    open();
    assert.equal((await called).text, "old");
    await removed;
    assert.equal((await p.call("web")).text, "web:2");
    assert.equal(await p.backend.tail(replica("web", 2), 100), "new");
  });

  test("of an unknown function is refused", async () => {
    await using p = await openPlatform();
    await assert.rejects(p.functions().remove(id("nobody")), code("FUNCTION_NOT_FOUND"));
  });

  test("keeps an image that another function uses", async () => {
    await using p = await openWithWeb();
    await p.create({ service: "other", image: "web:1" });
    await p.functions().remove(id("web"));
    assert.equal(p.backend.pins.size, 1);
    await p.functions().remove(id("other"));
    assert.equal(p.backend.pins.size, 0);
  });
});

suite("a store that cannot be written", () => {
  const full = () => {
    throw new AppError("DISK_FULL", ["what is deployed"]);
  };

  test("does not keep a failed update from going back", async () => {
    await using p = await openWithWeb();
    p.backend.push("web:2", { broken: "no such file" });
    p.store.fail = full;
    await assert.rejects(neverUnroutable(p, "web", p.update({ service: "web", image: "web:2" })), code("START_FAILED"));
    assert.equal((await p.call("web")).text, "web:1");
    const { state, image, reason } = p.status("web")!;
    assert.deepEqual([state, image, /update failed.*no such file/.test(reason!)], ["Ready", "web:1", true]);
  });

  test("does not keep an update from serving, which is written later", async () => {
    await using p = await openWithWeb();
    p.backend.push("web:2");
    const settle = p.store.settle.bind(p.store);
    p.store.settle = full;
    await neverUnroutable(p, "web", p.update({ service: "web", image: "web:2" }));
    assert.equal((await p.call("web")).text, "web:2");
    p.store.settle = settle;
    await p.rollout().reconcile();
    assert.equal(p.store.get(id("web"))!.previous, null);
    await until("the old image goes", () => p.backend.pins.size === 1);
  });

  test("does not keep a function asleep", async () => {
    await using p = await openWithWeb();
    await p.functions().scale(id("web"), 0);
    p.store.scale = full;
    assert.equal((await p.call("web")).status, 200);
  });
});

suite("many functions at once", () => {
  test("start a few at a time; one that is called goes first, and so does a new one", async () => {
    await using p = await openPlatform({ startsAtOnce: 2 });
    p.backend.push("web:1");
    const names = Array.from({ length: 12 }, (_, i) => `f${i}`);
    for (const service of names) await p.create({ service, image: "web:1" });
    const { opened, open } = gate();
    await p.restart(async () => {
      for (const [i, name] of names.entries()) await p.backend.lose(replica(name, i + 1));
      p.backend.journal.length = 0;
      p.backend.gate = opened;
    });
    await until("two are being started", () => p.backend.count("start") === 2);
    const called = p.call("f11");
    const created = p.create({ service: "new", image: "web:1" });
    await until("the new one waits", () => p.status("new")?.state === "Deploying");
    assert.equal(p.backend.count("start"), 2);
    open();
    assert.equal((await called).status, 200);
    await created;
    const starts = p.backend.journal.filter((line) => line.startsWith("start"));
    for (const name of ["start f11", "start new"])
      assert.ok(starts.findIndex((line) => line.startsWith(name)) < 6, `${name} in ${starts.join(", ")}`);
    await until("all serve", () => names.every((name) => p.routable(name).length === 1));
  });
});

suite("a restart of napd", () => {
  test("in the middle of an update asks the old version in its own way, not in that of the new one", async () => {
    await using p = await openPlatform({ readyTimeoutMs: 300 });
    p.backend.push("web:1", { answer: (req, res) => void res.writeHead(req.url === "/" ? 200 : 404).end("old") });
    p.backend.push("web:2", { listens: never });
    await p.create({ service: "web", image: "web:1" });
    const annotations = { "com.openfaas.ready.http.path": "/ready" };
    const updated = p.update({ service: "web", image: "web:2", annotations }).catch(() => {});
    await until("the new one is being started", () => p.backend.count("start web.2") === 1);
    await p.restart();
    await updated;
    await until("the update has failed", () => p.store.get(id("web"))!.previous === null);
    assert.deepEqual(await p.call("web/"), { status: 200, text: "old" });
    assert.equal(p.backend.count("start web.1.0"), 1);
  });

  test("in the middle of an update does not give the old version up while it is slow to answer", async () => {
    await using p = await openWithWeb();
    p.backend.push("web:2", { listens: never });
    const updated = p.update({ service: "web", image: "web:2" }).catch(() => {});
    await until("the new one is being started", () => p.backend.count("start web.2") === 1);
    const { opened, open } = gate();
    const thaw = p.backend.thaw.bind(p.backend);
    p.backend.thaw = (r) => opened.then(() => thaw(r));
    await p.restart(() => p.backend.freeze(replica("web", 1)));
    await updated;
    open();
    assert.equal((await p.call("web")).text, "web:1");
    assert.equal(p.backend.count("stop web.1.0"), 0);
  });

  test("takes over what runs: nothing is started, nothing stopped", async () => {
    await using p = await openWithWeb(min(2));
    await p.restart();
    await until("both serve", () => p.routable("web").length === 2);
    assert.deepEqual(p.routable("web"), ["web.1.0", "web.1.1"]);
    assert.deepEqual([p.backend.count("start"), p.backend.count("stop")], [2, 0]);
    assert.equal((await p.call("web")).text, "web:1");
  });

  test("leaves functions running while napd is away", async () => {
    await using p = await openWithWeb();
    await p.close();
    assert.deepEqual(await replicas(p.backend), ["web.1.0 running"]);
  });

  test("thaws what slept", async () => {
    await using p = await openWithWeb();
    await p.restart(() => p.backend.freeze(replica("web", 1)));
    assert.equal((await p.call("web")).text, "web:1");
    assert.equal(p.backend.count("start"), 1);
  });

  test("replaces what died meanwhile", async () => {
    await using p = await openWithWeb();
    await p.restart(() => p.backend.lose(replica("web", 1)));
    assert.equal((await p.call("web")).text, "web:1");
    assert.deepEqual([p.backend.count("start web.1.0"), p.backend.count("stop web.1.0")], [2, 1]);
  });

  test("removes what belongs to nobody", async () => {
    await using p = await openWithWeb();
    const image = [...p.backend.pins][0]!;
    const start = (r: ReturnType<typeof replica>) =>
      p.backend.start({ ...r, image, env: {}, secrets: [], readOnlyRoot: false, watchdog: "auto" });
    await p.restart(async () => {
      await start(replica("web", 99));
      await start(replica("unknown", 5));
      p.backend.pins.add("left over");
    });
    await until("only ours is left", async () => (await replicas(p.backend)).join() === "web.1.0 running");
    assert.deepEqual([...p.backend.pins], [image]);
  });

  test("starts what is missing only after it has cleared away what is left, or the new one would be taken along", async () => {
    await using p = await openWithWeb(min(3));
    const sweep = p.backend.sweep.bind(p.backend);
    p.backend.sweep = async (keep) => {
      await until("the survivors are ready", () => !p.rollout().observe(id("web"))!.starting);
      assert.equal(p.backend.count("start"), 3);
      await sweep(keep);
    };
    await p.restart(() => p.backend.lose(replica("web", 1, 2)));
    await until("three serve", () => p.routable("web").length === 3);
    assert.equal(p.backend.count("start"), 4);
  });

  test("in the middle of an update leaves the old version serving and goes on with the update", async () => {
    await using p = await openWithWeb();
    const { opened, open } = gate();
    p.backend.push("web:2", { listens: opened });
    const updated = p.update({ service: "web", image: "web:2" }).catch(() => {});
    await until("the new one is being started", () => p.backend.count("start web.2") === 1);
    await p.restart();
    await updated;
    assert.equal((await p.call("web")).text, "web:1");
    assert.equal(p.status("web")!.image, "web:2");
    open();
    await until("the new one serves", () => p.routable("web").join() === "web.2.0");
    await until("the old one is gone", async () => (await replicas(p.backend)).join() === "web.2.0 running");
  });

  test("does not take the end of a start at its stop for a failure of the version", async () => {
    await using p = await openWithWeb();
    const start = p.backend.start.bind(p.backend);
    p.backend.start = async (_, signal) => {
      await new Promise((resolve) => signal!.addEventListener("abort", resolve));
      throw new AppError("HOST_COMMAND", ["ip netns add", "killed"]);
    };
    p.backend.push("web:2");
    const updated = p.update({ service: "web", image: "web:2" }).catch(() => {});
    await until("there is something to go back to", () => p.store.get(id("web"))!.previous !== null);
    await turn();
    await p.restart(async () => {
      p.backend.start = start;
    });
    await until("the update is done", () => p.routable("web").join() === "web.2.0");
    assert.equal(p.store.get(id("web"))!.failure, null);
    await updated;
  });

  test("tells callers that wait that napd stops", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1", { listens: never });
    const deployed = p.create({ service: "web", image: "web:1" }).catch(() => {});
    await until("it is being started", () => p.backend.count("start") === 1);
    const called = p.call("web");
    await turn();
    await until("the caller waits", () => p.routable("web").length === 0);
    await p.close();
    assert.equal((await called).status, 503);
    void deployed;
  });

  test("in the mode that takes everything down leaves the deployments, and brings them up again", async () => {
    await using p = await openWithWeb();
    await p.restart(async () => {
      await p.rollout().removeAll();
      assert.deepEqual(await replicas(p.backend), []);
    });
    assert.equal((await p.call("web")).text, "web:1");
  });

  test("of a function that failed an update still tells why", async () => {
    await using p = await openWithWeb();
    p.backend.push("web:2", { broken: "no such file" });
    await assert.rejects(p.update({ service: "web", image: "web:2" }));
    await p.restart();
    await until("it serves", () => p.status("web")!.state === "Ready");
    assert.match(p.status("web")!.reason!, /update failed.*no such file/);
  });
});

suite("a function that was stored by another version of napd", () => {
  test("runs although its labels and annotations would be refused by now", async () => {
    await using p = await openWithWeb();
    await p.restart(async () => {
      const { version } = p.store.get(id("web"))!;
      const labels = { "com.openfaas.scale.min": "many" };
      const annotations = { "napd.timeout": "soon", "napd.route": "not a host" };
      p.store.update(id("web"), { ...version, spec: { ...version.spec, labels, annotations } }, 9, null, 1);
    });
    assert.deepEqual(await p.call("web"), { status: 200, text: "web:1" });
    assert.deepEqual(p.status("web")!.labels, { "com.openfaas.scale.min": "many" });
    await p.functions().scale(id("web"), 2);
  });
});
