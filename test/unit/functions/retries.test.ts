import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Retries } from "../../../src/functions/retries.ts";
import { hurriedClock } from "../../fakes/clock.ts";

const failure = { reason: "no luck", at: 0 };

/** How long `retries` waits from now until it may be tried, ms. */
async function waits(retries: Retries, clock = hurriedClock()): Promise<number> {
  const begin = clock.monotonic();
  await new Promise<void>((resolve) => {
    if (retries.isDue(clock, resolve)) resolve();
  });
  return clock.monotonic() - begin;
}

suite("trying again", () => {
  test("is at once, then ever later, but never later than after a minute", async () => {
    const retries = new Retries();
    const clock = hurriedClock();
    const waited: number[] = [];
    for (let i = 0; i < 10; i++) {
      retries.failed(failure, clock.monotonic());
      waited.push(await waits(retries, clock));
    }
    assert.deepEqual(waited, [0, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    assert.equal(retries.restarts, 10);
  });

  test("is told once, however often one asks", async () => {
    const retries = new Retries();
    const clock = hurriedClock();
    let told = 0;
    for (let i = 0; i < 2; i++) retries.failed(failure, 0);
    for (let i = 0; i < 3; i++)
      assert.equal(
        retries.isDue(clock, () => told++),
        false,
      );
    await clock.sleep(1000);
    await clock.sleep(1000);
    assert.equal(told, 1);
  });

  test("does not happen after it was cancelled, and a new version is not kept waiting by an old one's retry", async () => {
    const retries = new Retries();
    let told = 0;
    const clock = hurriedClock();
    for (let i = 0; i < 5; i++) retries.failed(failure, 0);
    assert.equal(
      retries.isDue(clock, () => told++),
      false,
    );
    retries.forgive();
    assert.equal(
      retries.isDue(clock, () => told++),
      true,
    );
    await clock.sleep(10_000);
    assert.equal(told, 0);
  });

  test("begins anew after a good time", () => {
    const retries = new Retries();
    for (let i = 0; i < 5; i++) retries.failed(failure, 1000);
    retries.served(2000, 33_000);
    retries.failed(failure, 33_000);
    assert.equal(
      retries.isDue({ ...hurriedClock(), monotonic: () => 33_000 }, () => {}),
      true,
    );
  });

  test("does not begin anew because of a sibling that is well: who crashes all the time must not be started all the time", () => {
    const retries = new Retries();
    for (let i = 0; i < 5; i++) {
      retries.failed(failure, i * 20_000);
      retries.served(0, i * 20_000 + 19_000);
    }
    retries.failed(failure, 100_000);
    assert.equal(
      retries.isDue({ ...hurriedClock(), monotonic: () => 105_000 }, () => {}),
      false,
    );
    retries.cancel();
  });

  test("is hopeless after three failures in a row, until a replica got ready", () => {
    const retries = new Retries();
    for (const hopeless of [false, false, true]) {
      retries.failed(failure, 0);
      assert.equal(retries.hopeless, hopeless);
    }
    retries.reason = null;
    assert.equal(retries.hopeless, false);
  });
});
