import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Flights, KeyedQueue } from "../../../src/base/flight.ts";

suite("a single flight", () => {
  test("runs once for all callers of a key while it lasts, and again afterwards", async () => {
    const flights = new Flights<string, number>();
    const { promise, resolve } = Promise.withResolvers<void>();
    let runs = 0;
    const work = async () => {
      runs++;
      await promise;
      return runs;
    };
    const callers = Array.from({ length: 100 }, () => flights.run("a", work));
    resolve();
    assert.deepEqual(new Set(await Promise.all(callers)), new Set([1]));
    assert.equal(await flights.run("a", work), 2);
  });

  test("keeps keys apart", async () => {
    const flights = new Flights<string, string>();
    const texts = await Promise.all(["a", "b"].map((key) => flights.run(key, async () => key)));
    assert.deepEqual(texts, ["a", "b"]);
  });

  test("that fails fails for all who waited, and is tried anew by the next", async () => {
    const flights = new Flights<string, string>();
    const fail = async () => {
      throw new Error("no");
    };
    const outcomes = await Promise.allSettled([flights.run("a", fail), flights.run("a", async () => "unused")]);
    assert.deepEqual(
      outcomes.map((o) => o.status),
      ["rejected", "rejected"],
    );
    assert.equal(await flights.run("a", async () => "yes"), "yes");
  });
});

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
