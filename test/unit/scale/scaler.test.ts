/** The scaler on the fake backend and the real rollout, one tick at a time on a clock of its own. */
import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { suite, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { openLog } from "../../../src/base/log.ts";
import type { Replica } from "../../../src/functions/replica.ts";
import { Scaler } from "../../../src/scale/scaler.ts";
import { LeapingClock } from "../../fakes/clock.ts";
import { gate, namespace, openPlatform, type PlatformOptions, until } from "../../fakes/platform.ts";

const id = { name: "web", namespace };
const second = 1000;

interface Options extends PlatformOptions {
  answer?: (req: IncomingMessage, res: ServerResponse) => void;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
}

async function open({ answer, labels, annotations, ...options }: Options = {}) {
  await using up = new AsyncDisposableStack();
  const clock = new LeapingClock(systemClock);
  const cpu = { now: 0 };
  const p = up.use(await openPlatform({ scale: { idleMs: 10 * second, stopAfterMs: 60 * second }, ...options }));
  const scaler = up.use(
    new Scaler({
      functions: () => p.rollout().managed(),
      backend: p.backend,
      stop: (fn) => p.rollout().stopIdle(fn),
      scale: (fn, replicas) => p.functions().scale(fn, replicas),
      milliCpu: () => cpu.now,
      clock,
      log: openLog("silent"),
    }),
  );
  p.backend.push("web:1", answer ? { answer } : {});
  await p.create({ service: "web", image: "web:1", labels, annotations });
  scaler.tick();
  /** A tick a second, as in life. */
  const pass = async (seconds: number) => {
    for (let i = 0; i < seconds; i++) {
      clock.leap(second);
      scaler.tick();
      await new Promise(setImmediate);
    }
  };
  const replicas = (): Replica[] => [...[...p.rollout().managed()][0]!.replicas.values()];
  const states = () => replicas().map((r) => r.state);
  const asleep = () => until("it sleeps", () => states().every((s) => s === "frozen"));
  const stack = up.move();
  return { p, clock, cpu, scaler, pass, replicas, states, asleep, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

suite("a function that nobody calls", () => {
  test("is frozen after its idle time, not before; a call thaws it and the time begins anew", async () => {
    await using s = await open();
    await s.pass(9);
    assert.deepEqual([s.p.status("web")!.state, s.p.backend.count("freeze")], ["Ready", 0]);
    await s.pass(2);
    await s.asleep();
    const { state, replicas, availableReplicas } = s.p.status("web")!;
    assert.deepEqual([state, replicas, availableReplicas], ["Asleep", 1, 1]);
    assert.equal((await s.p.call("web")).status, 200);
    assert.equal(s.p.status("web")!.state, "Ready");
    await s.pass(9);
    assert.equal(s.p.status("web")!.state, "Ready");
    await s.pass(2);
    await s.asleep();
    assert.deepEqual([s.p.backend.count("freeze"), s.p.backend.count("thaw")], [2, 1]);
  });

  test("is stopped after it was frozen for its time, stays wanted, and runs again for 1,000 callers with one start", async () => {
    await using s = await open();
    await s.pass(11);
    await s.asleep();
    await s.pass(62);
    await until("nothing runs", () => s.p.backend.holds().every((line) => !line.startsWith("replica")));
    const { state, replicas, availableReplicas } = s.p.status("web")!;
    assert.deepEqual([state, replicas, availableReplicas], ["Stopped", 1, 1]);
    await s.pass(100);
    await s.p.restart();
    assert.equal(s.p.status("web")!.state, "Stopped", "a restart of napd wakes nobody");
    const answers = await Promise.all(Array.from({ length: 1000 }, () => s.p.call("web")));
    assert.ok(answers.every((a) => a.status === 200));
    assert.equal(s.p.backend.count("start"), 2);
    assert.equal(s.p.status("web")!.state, "Ready");
  });

  test("that is called while it is being stopped is answered by the next process", async () => {
    await using s = await open();
    await s.pass(11);
    await s.asleep();
    [...s.p.rollout().managed()].map((m) => s.p.rollout().stopIdle(m));
    assert.equal((await s.p.call("web")).status, 200);
  });

  test("with label scale.zero = false is left alone", async () => {
    await using s = await open({ labels: { "com.openfaas.scale.zero": "false" } });
    await s.pass(100);
    assert.deepEqual(s.states(), ["ready"]);
  });

  test("is stopped instead where nothing can be frozen", async () => {
    await using s = await open();
    s.p.backend.can.freeze = false;
    await s.pass(11);
    assert.equal(s.p.status("web")!.state, "Stopped");
    assert.equal((await s.p.call("web")).status, 200);
    assert.equal(s.p.backend.count("freeze"), 0);
  });

  test("sleeps on over a restart of napd: its process is not touched until somebody calls", async () => {
    await using s = await open();
    await s.pass(11);
    await s.asleep();
    await s.p.restart();
    assert.deepEqual([s.p.status("web")!.state, s.p.status("web")!.availableReplicas], ["Asleep", 1]);
    assert.equal(s.p.backend.count("thaw"), 0);
    assert.equal((await s.p.call("web")).status, 200);
    assert.deepEqual([s.p.backend.count("thaw"), s.p.backend.count("start")], [1, 1]);
  });
});

suite("a request in flight", () => {
  test("keeps its function awake, however long it takes", async () => {
    const { opened, open: end } = gate();
    await using s = await open({ answer: (_, res) => void opened.then(() => res.end("slow")) });
    const call = s.p.call("web");
    await until("it is in flight", () => s.replicas()[0]!.inFlight === 1);
    await s.pass(100);
    assert.deepEqual(s.states(), ["ready"]);
    end();
    assert.equal((await call).text, "slow");
    await s.pass(9);
    assert.deepEqual(s.states(), ["ready"], "the time begins with the end of the call");
    await s.pass(2);
    await s.asleep();
  });

  test("that comes while the freeze is being written waits for it and thaws", async () => {
    await using s = await open();
    const { opened, open: write } = gate();
    const freeze = s.p.backend.freeze.bind(s.p.backend);
    s.p.backend.freeze = async (r) => {
      await opened;
      await freeze(r);
    };
    await s.pass(11);
    assert.deepEqual(s.states(), ["freezing"]);
    const calls = Promise.all(Array.from({ length: 100 }, () => s.p.call("web")));
    await until("they wait", () => s.replicas()[0]!.inFlight === 100);
    write();
    assert.ok((await calls).every((a) => a.status === 200));
    assert.deepEqual([s.p.backend.count("freeze"), s.p.backend.count("thaw")], [1, 1]);
  });

  test("is served when the freeze fails, which is undone and tried again later and later", async () => {
    await using s = await open();
    for (let i = 0; i < 3; i++) s.p.backend.failNext("freeze", new Error("EBUSY"));
    await s.pass(11);
    await until("it is awake again", () => s.states()[0] === "ready");
    assert.deepEqual([s.p.backend.count("freeze"), s.p.backend.count("thaw")], [1, 1]);
    assert.equal((await s.p.call("web")).status, 200);
    await s.pass(20);
    await s.asleep();
    assert.equal(s.p.backend.count("freeze"), 4);
  });
});

suite("a machine that stood still", () => {
  test("puts nobody to sleep: a leap of the clock is not a time without calls", async () => {
    await using s = await open();
    s.clock.leap(3_600_000);
    s.scaler.tick();
    assert.deepEqual(s.states(), ["ready"]);
    await s.pass(11);
    await s.asleep();
    s.clock.leap(3_600_000);
    s.scaler.tick();
    assert.deepEqual(s.states(), ["frozen"]);
  });
});

suite("many functions", () => {
  test("fall asleep a few at a time", async () => {
    await using s = await open();
    for (let i = 0; i < 40; i++) await s.p.create({ service: `f${i}`, image: "web:1" });
    const { opened, open: write } = gate();
    const freeze = s.p.backend.freeze.bind(s.p.backend);
    let most = 0;
    let now = 0;
    s.p.backend.freeze = async (r) => {
      most = Math.max(most, ++now);
      await opened;
      await freeze(r);
      now--;
    };
    await s.pass(15);
    assert.equal(most, 16);
    write();
    const all = () => [...s.p.rollout().managed()].flatMap((m) => [...m.replicas.values()]);
    await until("all sleep", async () => {
      await s.pass(1);
      return all().every((r) => r.state === "frozen");
    });
    assert.equal(most, 16);
  });
});

suite("scaled to 0", () => {
  test("sleeps at once with its replicas kept, is stopped later, and is back at its minimum by a call", async () => {
    await using s = await open({ labels: { "com.openfaas.scale.min": "2", "com.openfaas.scale.max": "5" } });
    await s.p.functions().scale(id, 4);
    await until("four serve", () => s.p.routable("web").length === 4);
    await s.p.functions().scale(id, 0);
    assert.deepEqual([s.p.status("web")!.replicas, s.p.status("web")!.availableReplicas], [0, 0]);
    await until("two are left", () => s.states().length === 2);
    await s.pass(1);
    await s.asleep();
    assert.equal(s.p.status("web")!.state, "Asleep");
    assert.equal((await s.p.call("web")).status, 200);
    assert.deepEqual([s.p.status("web")!.replicas, s.states().sort()], [2, ["frozen", "ready"]]);
    assert.equal(s.p.backend.count("start"), 4);
    await s.p.functions().scale(id, 0);
    await s.pass(1);
    await s.asleep();
    await s.pass(62);
    assert.equal(s.p.status("web")!.state, "Stopped");
    assert.equal((await s.p.call("web")).status, 200);
    assert.equal(s.p.status("web")!.replicas, 2);
  });

  test("lets the call under way end, and is woken by one that comes before it sleeps", async () => {
    const { opened, open: end } = gate();
    await using s = await open({
      answer: (req, res) => void (req.url === "/slow" ? opened.then(() => res.end("slow")) : res.end("quick")),
    });
    const slow = s.p.call("web/slow");
    await until("it is in flight", () => s.replicas()[0]!.inFlight === 1);
    await s.p.functions().scale(id, 0);
    await s.pass(3);
    assert.deepEqual(s.states(), ["ready"]);
    assert.equal((await s.p.call("web")).text, "quick");
    assert.equal(s.p.status("web")!.replicas, 1);
    end();
    assert.equal((await slow).text, "slow");
  });
});

suite("load", () => {
  const load = {
    "com.openfaas.scale.max": "4",
    "com.openfaas.scale.target": "10",
    "com.openfaas.scale.target-proportion": "1",
  };
  const wanted = (s: { p: { status(name: string): { replicas: number } | undefined } }) => s.p.status("web")!.replicas;

  test("in calls a second brings replicas at once, and they leave when the window has passed", async () => {
    await using s = await open({ labels: load });
    const calls = [...s.p.rollout().managed()][0]!.entry.calls;
    const callsOf = async (perSecond: number, seconds: number) => {
      for (let i = 0; i < seconds; i++) {
        for (let n = 0; n < perSecond; n++) {
          calls.begin();
          calls.end(200, 0);
        }
        await s.pass(1);
      }
    };
    await callsOf(10, 20);
    assert.equal(wanted(s), 1);
    await callsOf(35, 10);
    assert.equal(wanted(s), 4);
    await until("four serve", () => s.p.routable("web").length === 4);
    await callsOf(5, 20);
    assert.equal(wanted(s), 4, "half a minute must pass first");
    await callsOf(5, 25);
    assert.equal(wanted(s), 1);
    assert.equal(s.p.store.get(id)!.replicas, 1);
  });

  test("in calls in flight counts those that wait too", async () => {
    const { opened, open: end } = gate();
    await using s = await open({
      labels: { ...load, "com.openfaas.scale.type": "capacity", "com.openfaas.scale.down.window": "5s" },
      answer: (_, res) => void opened.then(() => res.end()),
    });
    const calls = Promise.all(Array.from({ length: 25 }, () => s.p.call("web")));
    await until("they are in flight", () => [...s.p.rollout().managed()][0]!.entry.calls.inFlight === 25);
    await s.pass(1);
    assert.equal(wanted(s), 3);
    end();
    await calls;
    await s.pass(4);
    assert.equal(wanted(s), 3);
    await s.pass(3);
    assert.equal(wanted(s), 1);
  });

  test("in thousandths of a core", async () => {
    await using s = await open({
      labels: { ...load, "com.openfaas.scale.type": "cpu", "com.openfaas.scale.target": "500" },
    });
    s.cpu.now = 1100;
    await s.pass(1);
    assert.equal(wanted(s), 3);
  });

  test("leaves a count that somebody asked for alone for the window, and one of 0 for ever", async () => {
    await using s = await open({ labels: load });
    await s.p.functions().scale(id, 3);
    await s.pass(25);
    assert.equal(wanted(s), 3);
    await s.pass(10);
    assert.equal(wanted(s), 1);
    await s.p.functions().scale(id, 0);
    await s.pass(100);
    assert.equal(wanted(s), 0);
  });

  test("writes nothing while the count stays", async () => {
    await using s = await open({ labels: load });
    let writes = 0;
    const scale = s.p.store.scale.bind(s.p.store);
    s.p.store.scale = (...args) => {
      writes++;
      return scale(...args);
    };
    await s.pass(60);
    assert.equal(writes, 0);
  });

  test("is nothing for a function that says nothing about it", async () => {
    await using s = await open();
    const calls = [...s.p.rollout().managed()][0]!.entry.calls;
    for (let i = 0; i < 10; i++) {
      for (let n = 0; n < 1000; n++) {
        calls.begin();
        calls.end(200, 0);
      }
      await s.pass(1);
    }
    assert.equal(wanted(s), 1);
  });
});

suite("an alert", () => {
  test("brings replicas and takes them away again", async () => {
    await using s = await open({ labels: { "com.openfaas.scale.max": "4", "com.openfaas.scale.factor": "50" } });
    const { functions } = s.p;
    await functions().alert(id, true);
    assert.equal(s.p.status("web")!.replicas, 3);
    await functions().alert(id, true);
    assert.equal(s.p.status("web")!.replicas, 4);
    await functions().alert(id, false);
    assert.equal(s.p.status("web")!.replicas, 1);
    await functions().alert({ name: "nobody", namespace }, true);
    await functions().alert({ name: "web", namespace: "no-such" }, true);
  });
});
