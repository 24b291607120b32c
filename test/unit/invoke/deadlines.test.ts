import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Deadlines } from "../../../src/invoke/deadlines.ts";

/** Something that is due in `ms`, and notes it. */
function due(ms: number, told: number[], then = () => {}, from = performance.now()) {
  const deadline = from + ms;
  const expire = () => {
    told.push(ms);
    then();
  };
  return { deadline, slot: -1, expire };
}

suite("deadlines", () => {
  test("are told in their order, once, and not before they pass", async () => {
    const deadlines = new Deadlines();
    const told: number[] = [];
    const begin = performance.now();
    const done = Promise.withResolvers<void>();
    for (const ms of [60, 20, 40]) deadlines.add(due(ms, told, () => deadlines.size === 0 && done.resolve(), begin));
    await Promise.all([done.promise, delay(60)]);
    assert.deepEqual(told, [20, 40, 60]);
    assert.ok(performance.now() - begin >= 59);
    assert.equal(deadlines.size, 0);
  });

  test("that are taken out are not told; the others keep theirs", async () => {
    const deadlines = new Deadlines();
    const told: number[] = [];
    const begin = performance.now();
    const all = [10, 11, 12, 13, 14].map((ms) => due(ms, told, () => {}, begin));
    for (const one of all) deadlines.add(one);
    for (const i of [0, 4, 2, 2]) deadlines.delete(all[i]!);
    assert.equal(deadlines.size, 2);
    await delay(100);
    assert.deepEqual(told, [11, 13]);
  });

  test("may be added and taken out while others are told", async () => {
    const deadlines = new Deadlines();
    const told: number[] = [];
    const second = due(10, told);
    deadlines.add(due(10, told, () => deadlines.add(due(1, told))));
    deadlines.add(second);
    deadlines.delete(second);
    await delay(100);
    assert.deepEqual(told, [10, 1]);
  });

  test("further off than a timer can be are not told at once", async () => {
    const deadlines = new Deadlines();
    const told: number[] = [];
    deadlines.add(due(2 ** 32, told));
    await delay(20);
    assert.deepEqual(told, []);
  });
});
