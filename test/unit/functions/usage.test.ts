import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { openLog } from "../../../src/base/log.ts";
import type { ReplicaStats } from "../../../src/functions/backend.ts";
import { Usage } from "../../../src/functions/usage.ts";

const id = { name: "web", namespace: "fn" };

/** A replica of web, by number, with CPU in ms. */
const replica = (number: number, cpuMs: number, memoryBytes = 100, generation = 1): ReplicaStats => ({
  ...{ ...id, generation, number, memoryBytes },
  cpuNanoseconds: cpuMs * 1e6,
});

async function open() {
  const world = { now: 0, samples: 0, stats: [] as ReplicaStats[], fails: false, has: true };
  const sleepers: (() => void)[] = [];
  const usage = new Usage({
    backend: {
      async stats() {
        world.samples++;
        await turn();
        if (world.fails) throw new Error("no stats today");
        return world.stats;
      },
    },
    table: { has: () => world.has },
    clock: {
      now: () => world.now,
      monotonic: () => world.now,
      sleep: (_ms, signal) =>
        new Promise((resolve, reject) => {
          sleepers.push(resolve);
          signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
        }),
    },
    log: openLog("silent"),
  });
  /** Lets so much time pass, then asks. */
  const after = async (ms: number, stats: ReplicaStats[]) => {
    world.now += ms;
    world.stats = stats;
    return usage.of(id);
  };
  return { world, usage, after, sleepers, [Symbol.asyncDispose]: () => usage[Symbol.asyncDispose]() };
}

suite("usage of functions", () => {
  test("what a replica had used before anybody measured is not counted", async () => {
    await using t = await open();
    assert.deepEqual(await t.after(1000, [replica(0, 50_000)]), { cpu: 0, totalMemoryBytes: 100 });
    assert.deepEqual(await t.after(2000, [replica(0, 51_000)]), { cpu: 500, totalMemoryBytes: 100 });
    assert.equal(t.usage.totals()[0]!.cpuSeconds, 1);
  });

  const rows: [what: string, before: ReplicaStats[], after: ReplicaStats[], cpu: number, memory: number][] = [
    ["one that does nothing", [replica(0, 5)], [replica(0, 5)], 0, 100],
    ["two are summed up", [replica(0, 0), replica(1, 0)], [replica(0, 200), replica(1, 300, 50)], 250, 150],
    [
      "a new one has used all it has since the last sample",
      [replica(0, 7)],
      [replica(0, 7), replica(1, 400)],
      200,
      200,
    ],
    ["one started anew under its id", [replica(0, 900)], [replica(0, 300)], 150, 100],
    ["a new generation in the old one's place", [replica(0, 900)], [replica(0, 300, 80, 2)], 150, 80],
    ["none left", [replica(0, 900)], [], 0, 0],
    ["more than a core", [replica(0, 0)], [replica(0, 5000)], 2500, 100],
  ];
  for (const [what, before, now, cpu, totalMemoryBytes] of rows)
    test(`over two seconds: ${what}`, async () => {
      await using t = await open();
      await t.after(1000, before);
      assert.deepEqual(await t.after(2000, now), { cpu, totalMemoryBytes });
    });

  test("the total never goes back, though replicas go", async () => {
    await using t = await open();
    await t.after(1000, [replica(0, 0), replica(1, 0)]);
    await t.after(1000, [replica(0, 100), replica(1, 300)]);
    await t.after(1000, [replica(0, 150)]);
    await t.after(1000, []);
    assert.ok(Math.abs(t.usage.totals()[0]!.cpuSeconds - 0.45) < 1e-9);
  });

  test("a thousand who ask at once cost one sample, and so does a second of asking", async () => {
    await using t = await open();
    await t.after(1000, [replica(0, 0)]);
    const samples = t.world.samples;
    t.world.now += 1000;
    await Promise.all(Array.from({ length: 1000 }, () => t.usage.of(id)));
    for (let i = 0; i < 9; i++) await t.after(100, [replica(0, 0)]);
    assert.equal(t.world.samples, samples + 1);
  });

  test("it samples by itself as time passes, and no more once it is closed", async () => {
    const t = await open();
    await t.usage.of(id);
    for (let i = 1; i <= 3; i++) {
      t.world.now += 10_000;
      while (t.sleepers.length < i) await turn();
      t.sleepers[i - 1]!();
      await turn();
      await turn();
    }
    assert.equal(t.world.samples, 4);
    await t[Symbol.asyncDispose]();
    assert.equal(t.world.samples, 4);
  });

  test("a sample that fails changes nothing; the next one counts what was missed", async () => {
    await using t = await open();
    await t.after(1000, [replica(0, 0)]);
    t.world.fails = true;
    assert.deepEqual(await t.after(1000, []), { cpu: 0, totalMemoryBytes: 100 });
    t.world.fails = false;
    assert.deepEqual(await t.after(1000, [replica(0, 1000)]), { cpu: 500, totalMemoryBytes: 100 });
  });

  test("a function that is deleted is forgotten, and one that nobody knows uses nothing", async () => {
    await using t = await open();
    await t.after(1000, [replica(0, 0)]);
    assert.equal(t.usage.totals().length, 1);
    t.world.has = false;
    assert.deepEqual(await t.after(1000, [replica(0, 10)]), { cpu: 0, totalMemoryBytes: 0 });
    assert.deepEqual(t.usage.totals(), []);
  });
});
