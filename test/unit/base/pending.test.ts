import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Pending } from "../../../src/base/pending.ts";

suite("pending work", () => {
  test("is waited for, with what it begins itself, and its failures are told", async () => {
    const failures: unknown[] = [];
    const pending = new Pending((e) => failures.push(e));
    const done: string[] = [];
    const later = async (name: string) => {
      await new Promise((resolve) => setImmediate(resolve));
      done.push(name);
    };
    pending.add(later("first").then(() => pending.add(later("second"))));
    pending.add(Promise.reject(new Error("no")));
    await pending.settled();
    assert.deepEqual(done, ["first", "second"]);
    assert.deepEqual(failures.map(String), ["Error: no"]);
  });

  test("none is no wait", () => new Pending(() => {}).settled());
});
