import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { KeyedQueue } from "../../../src/base/keyed-queue.ts";

suite("a keyed queue", () => {
  test("runs work of one key one after the other, in the order it came", async () => {
    const queue = new KeyedQueue<string>();
    const events: string[] = [];
    const step = (name: string) => async () => {
      events.push(`${name} begins`);
      await new Promise(setImmediate);
      events.push(`${name} ends`);
    };
    await Promise.all(["one", "two", "three"].map((name) => queue.run("a", step(name))));
    assert.deepEqual(
      events,
      ["one", "two", "three"].flatMap((name) => [`${name} begins`, `${name} ends`]),
    );
  });

  test("runs work of different keys at once", async () => {
    const queue = new KeyedQueue<string>();
    const { promise, resolve } = Promise.withResolvers<void>();
    const waits = queue.run("a", () => promise);
    await queue.run("b", async () => resolve());
    await waits;
  });

  test("goes on after a failure, which only its own caller hears of", async () => {
    const queue = new KeyedQueue<string>();
    const failed = queue.run("a", async () => {
      throw new Error("no");
    });
    const next = queue.run("a", async () => "yes");
    await assert.rejects(failed, /no/);
    assert.equal(await next, "yes");
  });

  test("takes work up anew after it was empty", async () => {
    const queue = new KeyedQueue<string>();
    for (const value of [1, 2]) assert.equal(await queue.run("a", async () => value), value);
  });
});
