import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { mapBounded } from "../../../src/base/bounded.ts";

suite("work with a bound", () => {
  for (const { items, limit } of [
    { items: 10, limit: 3 },
    { items: 2, limit: 8 },
    { items: 0, limit: 4 },
  ])
    test(`${items} items, ${limit} at once: all are done, in order, never more at once`, async () => {
      let running = 0;
      let most = 0;
      const numbers = Array.from({ length: items }, (_, i) => i);
      const results = await mapBounded(numbers, limit, async (n) => {
        most = Math.max(most, ++running);
        await turn();
        running--;
        return n * 2;
      });
      assert.deepEqual(
        results,
        numbers.map((n) => n * 2),
      );
      assert.equal(most, Math.min(items, limit));
    });

  test("a failure is told when all that was begun has ended, and nothing is begun after it", async () => {
    const begun: number[] = [];
    let ended = 0;
    const work = mapBounded([0, 1, 2, 3, 4], 2, async (n) => {
      begun.push(n);
      await turn();
      ended++;
      if (n === 0) throw new Error("no");
    });
    await assert.rejects(work, /no/);
    assert.equal(ended, begun.length);
    assert.ok(!begun.includes(4), begun.join());
  });
});
