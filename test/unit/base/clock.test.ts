import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { systemClock, within } from "../../../src/base/clock.ts";

suite("the system's clock", () => {
  test("sleeps no shorter than asked", async () => {
    const begin = systemClock.monotonic();
    await systemClock.sleep(20);
    assert.ok(systemClock.monotonic() - begin >= 19);
  });

  test("wakes who is told to, with the reason", async () => {
    const wake = new AbortController();
    const reason = new Error("enough");
    const sleeping = systemClock.sleep(3_600_000, wake.signal);
    wake.abort(reason);
    await assert.rejects(sleeping, reason);
    await assert.rejects(systemClock.sleep(3_600_000, wake.signal), reason);
  });
});

suite("waiting within a time", () => {
  const never = new Promise<string>(() => {});

  test("gives what the work comes to", async () => {
    assert.equal(await within(Promise.resolve("done"), 3_600_000, systemClock), "done");
  });

  test("gives nothing when the time is over", async () => {
    assert.equal(await within(never, 1, systemClock), undefined);
  });

  test("fails as the work fails", async () => {
    await assert.rejects(within(Promise.reject(new Error("no")), 3_600_000, systemClock), /no/);
  });
});
