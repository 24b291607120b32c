import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { backoffMs } from "../../../src/base/backoff.ts";

suite("back-off", () => {
  const rows: [attempt: number, ms: number][] = [
    [0, 500],
    [1, 1000],
    [2, 2000],
    [6, 32_000],
    [7, 60_000],
    [31, 60_000],
    [5000, 60_000],
  ];
  for (const [attempt, ms] of rows)
    test(`waits ${ms} ms after attempt ${attempt}, when it goes from 500 ms to a minute`, () =>
      assert.equal(backoffMs(attempt, 500, 60_000), ms));
});
