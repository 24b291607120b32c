import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { suite, test } from "node:test";
import { replicaId } from "../../../src/functions/backend.ts";
import { Replica, type ReplicaState } from "../../../src/functions/replica.ts";

const identity = { name: "web", namespace: "fn", generation: 7, number: 2 };
const states: ReplicaState[] = ["starting", "ready", "freezing", "frozen", "failed", "stopping"];

/** Who answers, now or after a wake. */
const servers: ReplicaState[] = ["ready", "freezing", "frozen"];

/** A way from `starting` to each state. */
const ways: Record<ReplicaState, ReplicaState[]> = {
  starting: [],
  ready: ["ready"],
  freezing: ["ready", "freezing"],
  frozen: ["frozen"],
  failed: ["failed"],
  stopping: ["failed", "stopping"],
};

function replicaIn(state: ReplicaState): Replica {
  const replica = new Replica(identity);
  for (const next of ways[state]) replica.move([replica.state], next);
  assert.equal(replica.state, state);
  return replica;
}

suite("the states of a replica", () => {
  const legal = new Set([
    "starting ready",
    "starting frozen",
    "starting failed",
    "ready freezing",
    "ready failed",
    "ready stopping",
    "freezing ready",
    "freezing frozen",
    "freezing failed",
    "freezing stopping",
    "frozen ready",
    "frozen failed",
    "frozen stopping",
    "failed stopping",
  ]);
  for (const from of states)
    for (const to of states)
      if (legal.has(`${from} ${to}`))
        test(`${from} → ${to} is a move`, () => {
          const replica = replicaIn(from);
          assert.equal(replica.move([from], to), true);
          assert.equal(replica.state, to);
        });
      else
        test(`${from} → ${to} is a bug, and says so`, () => {
          const replica = replicaIn(from);
          assert.throws(() => replica.move([from], to), new RegExp(`web\\.7\\.2: ${from} -> ${to}`));
          assert.equal(replica.state, from);
        });

  test("a move that comes too late is told so and changes nothing", () => {
    const replica = replicaIn("failed");
    assert.equal(replica.move(["starting", "ready"], "ready"), false);
    assert.equal(replica.state, "failed");
  });

  for (const state of states)
    test(`one that is ${state} ${servers.includes(state) ? "serves" : "does not serve"}`, () =>
      assert.equal(replicaIn(state).serves, servers.includes(state)));

  test("its name tells function, generation and number", () => {
    assert.equal(replicaId(identity), "web.7.2");
    assert.equal(new Replica(identity).id, "web.7.2");
  });
});

suite("waking up", () => {
  test("one that is awake asks nobody", async () => {
    await replicaIn("ready").ensureAwake(() => assert.fail("thawed what is awake"));
  });

  test("a thousand callers share one thaw, and find it ready", async () => {
    const replica = replicaIn("frozen");
    const { promise, resolve } = Promise.withResolvers<void>();
    const thawed: unknown[] = [];
    const callers = Array.from({ length: 1000 }, () =>
      replica.ensureAwake((r) => {
        thawed.push(r);
        return promise;
      }),
    );
    resolve();
    await Promise.all(callers);
    assert.deepEqual(thawed, [identity]);
    assert.equal(replica.state, "ready");
  });

  test("a thaw that fails fails for all who wait, and is tried anew by the next", async () => {
    const replica = replicaIn("frozen");
    const fail = async () => {
      throw new Error("EBUSY");
    };
    const outcomes = await Promise.allSettled([replica.ensureAwake(fail), replica.ensureAwake(fail)]);
    assert.deepEqual(
      outcomes.map((o) => o.status),
      ["rejected", "rejected"],
    );
    await replica.ensureAwake(async () => {});
    assert.equal(replica.state, "ready");
  });

  test("one that is lost while it wakes up stays lost", async () => {
    const replica = replicaIn("frozen");
    await replica.ensureAwake(async () => void replica.move(["frozen"], "failed"));
    assert.equal(replica.state, "failed");
  });
});

suite("falling asleep", () => {
  /** A kernel that writes down what it is asked; its freezes wait for `gate`, and fail with `error`. */
  function kernel({ gate, error, stuck = false }: { gate?: Promise<void>; error?: Error; stuck?: boolean } = {}) {
    const did: string[] = [];
    return {
      did,
      freeze: async () => {
        did.push("freeze");
        await gate;
        if (error) throw error;
      },
      thaw: async () => {
        did.push("thaw");
        if (stuck) throw new Error("EIO");
      },
    };
  }

  test("is for who has nothing to do and is awake, and for nobody else", async () => {
    const busy = replicaIn("ready");
    busy.inFlight = 1;
    for (const replica of [busy, ...states.filter((s) => s !== "ready").map(replicaIn)]) {
      const k = kernel();
      const before = replica.state;
      assert.equal(await replica.fallAsleep(k), false, before);
      assert.deepEqual([replica.state, k.did], [before, []]);
    }
    const replica = replicaIn("ready");
    assert.equal(await replica.fallAsleep(kernel()), true);
    assert.equal(replica.state, "frozen");
  });

  test("is ended by a thousand callers who come in the middle of it, with one thaw after the freeze", async () => {
    const replica = replicaIn("ready");
    const { promise, resolve } = Promise.withResolvers<void>();
    const k = kernel({ gate: promise });
    const freezing = replica.fallAsleep(k);
    const callers = Array.from({ length: 1000 }, () => replica.ensureAwake(k.thaw));
    await new Promise(setImmediate);
    assert.deepEqual([replica.state, k.did], ["freezing", ["freeze"]]);
    resolve();
    await Promise.all([freezing, ...callers]);
    assert.deepEqual([replica.state, k.did], ["ready", ["freeze", "thaw"]]);
  });

  test("that fails is undone, and callers in the middle of it do not notice", async () => {
    const replica = replicaIn("ready");
    const k = kernel({ error: new Error("EBUSY") });
    const freezing = assert.rejects(replica.fallAsleep(k), /EBUSY/);
    await Promise.all([freezing, replica.ensureAwake(k.thaw)]);
    assert.deepEqual([replica.state, k.did], ["ready", ["freeze", "thaw"]]);
  });

  test("that fails and cannot be undone leaves it to the next caller to thaw", async () => {
    const replica = replicaIn("ready");
    await assert.rejects(replica.fallAsleep(kernel({ error: new Error("EBUSY"), stuck: true })), /EBUSY/);
    assert.equal(replica.state, "frozen");
    await replica.ensureAwake(kernel().thaw);
    assert.equal(replica.state, "ready");
  });

  for (const end of ["stopping", "failed"] as const)
    test(`of one that is ${end} meanwhile changes nothing, and can be waited for`, async () => {
      const replica = replicaIn("ready");
      const { promise, resolve } = Promise.withResolvers<void>();
      const freezing = replica.fallAsleep(kernel({ gate: promise }));
      replica.move(["freezing"], end);
      let settled = false;
      const waiting = replica.settled().then(() => {
        settled = true;
      });
      await new Promise(setImmediate);
      assert.equal(settled, false);
      resolve();
      await Promise.all([freezing, waiting]);
      assert.equal(replica.state, end);
    });
});

suite("requests in flight", () => {
  test("none is drained at once", async () => {
    await new Replica(identity).drained();
  });

  test("the last one to end drains it", async () => {
    const replica = replicaIn("ready");
    replica.inFlight = 2;
    let drained = false;
    const waiting = replica.drained().then(() => {
      drained = true;
    });
    replica.release();
    await new Promise(setImmediate);
    assert.equal(drained, false);
    replica.release();
    await waiting;
    assert.equal(replica.inFlight, 0);
  });

  test("those that still run are cut when it disconnects, and there may be no connection yet", async () => {
    const server = createServer(() => {}).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const replica = replicaIn("ready");
    await replica.disconnect();
    replica.connect({ host: "127.0.0.1", port: (server.address() as AddressInfo).port });
    const arrived = new Promise((resolve) => server.once("request", resolve));
    const failed = new Promise<Error>((resolve) => {
      const nothing = () => {};
      const told = {
        connected: nothing,
        head: nothing,
        data: nothing,
        end: nothing,
        batchEnd: nothing,
        drain: nothing,
      };
      const head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
      replica.pool!.take().begin({ ...told, failed: resolve }, "GET", head, false);
    });
    await arrived;
    await replica.disconnect();
    assert.match((await failed).message, /its replica was stopped/);
    server.closeAllConnections();
    server.close();
  });
});
