import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { decideSleep, Highest, Rate, replicasFor, type Sight, type SleepDecision } from "../../../src/scale/decide.ts";

/** Idle for longer than it has to be, at 100 s on the clock. */
const idle: Sight = {
  ...{ now: 100_000, activeAt: 0, asleepAt: null, inFlight: 0, awake: 1, frozen: 0, isChanging: false, wanted: 1 },
  ...{ canFreeze: true, policy: { sleeps: true, idleMs: 60_000, stopAfterMs: 3_600_000 } },
};
const asleep: Sight = { ...idle, awake: 0, frozen: 1, asleepAt: 0 };

suite("sleep", () => {
  const rows: {
    says: string;
    sight: Partial<Sight>;
    of?: Sight;
    policy?: Partial<Sight["policy"]>;
    is: SleepDecision;
  }[] = [
    { says: "comes to who was not called for the whole time", sight: {}, is: "freeze" },
    { says: "comes at the very end of that time", sight: { activeAt: 40_000 }, is: "freeze" },
    { says: "does not come before", sight: { activeAt: 40_001 }, is: "leave" },
    { says: "does not come to who is called", sight: { inFlight: 1 }, is: "leave" },
    { says: "does not come to who must not", sight: {}, policy: { sleeps: false }, is: "leave" },
    { says: "does not come in the middle of a rollout", sight: { isChanging: true }, is: "leave" },
    { says: "comes to replicas that were left awake beside frozen ones", sight: { frozen: 2 }, is: "freeze" },
    { says: "comes at once to who was scaled to 0", sight: { wanted: 0, activeAt: 100_000 }, is: "freeze" },
    {
      says: "comes to who was scaled to 0, also where functions do not sleep",
      sight: { wanted: 0 },
      policy: { sleeps: false },
      is: "freeze",
    },
    { says: "waits for the calls of who was scaled to 0", sight: { wanted: 0, inFlight: 1 }, is: "leave" },
    { says: "is the end of the processes where nothing can be frozen", sight: { canFreeze: false }, is: "stop" },
    { says: "is the end of the processes where that is asked for", sight: {}, policy: { stopAfterMs: 0 }, is: "stop" },
    { says: "goes on", of: asleep, sight: {}, is: "leave" },
    { says: "ends in a stop after its time", of: asleep, sight: { now: 3_600_000 }, is: "stop" },
    {
      says: "goes on for ever where it may",
      of: asleep,
      sight: { now: 1e12 },
      policy: { stopAfterMs: Number.POSITIVE_INFINITY },
      is: "leave",
    },
    {
      says: "does not end in a stop while a call is about to wake it",
      of: asleep,
      sight: { now: 3_600_000, inFlight: 1 },
      is: "leave",
    },
    {
      says: "is nothing for who has no replicas",
      of: asleep,
      sight: { now: 3_600_000, frozen: 0, asleepAt: null },
      is: "leave",
    },
  ];
  for (const { says, of = idle, sight, policy, is } of rows)
    test(says, () => assert.equal(decideSleep({ ...of, ...sight, policy: { ...of.policy, ...policy } }), is));
});

suite("the replicas that a load asks for", () => {
  const rows: [load: number, perReplica: number, min: number, max: number, is: number][] = [
    [0, 45, 1, 20, 1],
    [0, 45, 2, 20, 2],
    [45, 45, 1, 20, 1],
    [45.1, 45, 1, 20, 2],
    [10, 4.5, 1, 2, 2],
    [9, 10 * 0.9, 1, 20, 1],
    [0.3, 0.1, 1, 20, 3],
    [1e6, 45, 1, 20, 20],
  ];
  for (const [load, perReplica, min, max, is] of rows)
    test(`${load} at ${perReplica} each, from ${min} to ${max}, is ${is}`, () =>
      assert.equal(replicasFor(load, perReplica, min, max), is));
});

suite("a rate", () => {
  test("is the counter's growth over the window, from the first sample on", () => {
    const rate = new Rate(10_000);
    assert.equal(rate.add(0, 500), 0);
    for (let s = 1; s <= 10; s++) assert.equal(Math.round(rate.add(s * 1000, 500 + s * 7) * 10), s * 7);
    assert.equal(rate.add(11_000, 577), 7);
  });

  test("falls to nothing within the window when the counter stands still", () => {
    const rate = new Rate(10_000);
    for (let s = 0; s <= 10; s++) rate.add(s * 1000, s * 10);
    assert.equal(rate.add(15_000, 100), 5);
    assert.equal(rate.add(20_000, 100), 0);
  });
});

suite("the highest of a window", () => {
  test("is forgotten when the window has passed it, and then the next highest counts", () => {
    const highest = new Highest();
    for (const [at, value] of [
      [0, 3],
      [10, 5],
      [20, 4],
      [30, 1],
    ] as const)
      highest.add(at, value);
    assert.deepEqual(
      [highest.within(30, 40), highest.within(30, 41), highest.within(30, 51), highest.within(30, 999)],
      [5, 4, 1, 1],
    );
  });

  test("is nothing when there was nothing", () => assert.equal(new Highest().within(10, 0), undefined));
});
