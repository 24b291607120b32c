import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { asyncDefaults, asyncPolicyOf } from "../../../src/functions/async-policy.ts";
import { decide, type Result, type RetryPolicy } from "../../../src/queue/retry.ts";

const policy: RetryPolicy = {
  attempts: 3,
  minWaitMs: 1000,
  maxWaitMs: 5000,
  backoff: "equal",
  codes: new Set([429, 500, 503]),
};
const now = Date.parse("2026-01-01T00:00:00Z");

suite("after an attempt", () => {
  const rows: { says: string; result: Partial<Result>; attempts?: number; random?: number; decision: unknown }[] = [
    { says: "that went well nothing is left to do", result: { status: 200 }, decision: "done" },
    { says: "a status that is not listed is an answer", result: { status: 404 }, decision: "done" },
    { says: "a listed one is tried again", result: { status: 500 }, random: 1, decision: { waitMs: 1000 } },
    { says: "the wait doubles", result: { status: 500 }, attempts: 2, random: 1, decision: { waitMs: 2000 } },
    { says: "half of the wait is by chance", result: { status: 500 }, random: 0, decision: { waitMs: 500 } },
    { says: "the last one is given up", result: { status: 500 }, attempts: 3, decision: "dead" },
    {
      says: "what the platform refused is tried again",
      result: { status: 404, isInternal: true },
      decision: { waitMs: 750 },
    },
    { says: "until it is given up", result: { status: 404, isInternal: true }, attempts: 3, decision: "dead" },
    {
      says: "Retry-After in seconds is obeyed",
      result: { status: 429, retryAfter: "30" },
      decision: { waitMs: 30_000 },
    },
    { says: "but not below the least wait", result: { status: 503, retryAfter: "0" }, decision: { waitMs: 1000 } },
    {
      says: "Retry-After as a date is obeyed",
      result: { status: 503, retryAfter: "Thu, 01 Jan 2026 00:01:00 GMT" },
      decision: { waitMs: 60_000 },
    },
    { says: "one that cannot be read is not", result: { status: 503, retryAfter: "soon" }, decision: { waitMs: 750 } },
    { says: "nor one of another status", result: { status: 500, retryAfter: "30" }, decision: { waitMs: 750 } },
    {
      says: "nobody is made to wait for ever",
      result: { status: 503, retryAfter: "9999999999" },
      decision: { waitMs: 86_400_000 },
    },
  ];
  for (const { says, result, attempts = 1, random = 0.5, decision } of rows)
    test(says, () => {
      const whole: Result = { status: 200, isInternal: false, retryAfter: undefined, ...result };
      assert.deepEqual(decide(whole, attempts, policy, now, random), decision);
    });

  test("many retries end at the longest wait", () =>
    assert.deepEqual(
      decide({ status: 500, isInternal: false, retryAfter: undefined }, 50, { ...policy, attempts: 99 }, now, 1),
      { waitMs: 5000 },
    ));
});

suite("annotations of asynchronous calls", () => {
  const key = (name: string) => `com.openfaas.retry.${name}`;
  const rows: [says: string, annotations: Record<string, string>, changed: object][] = [
    ["none: the settings", {}, {}],
    ["attempts", { [key("attempts")]: "3" }, { attempts: 3 }],
    ["waits", { [key("min_wait")]: "2s", [key("max_wait")]: "1m" }, { minWaitMs: 2000, maxWaitMs: 60_000 }],
    ["a longest wait below the least", { [key("min_wait")]: "1h" }, { minWaitMs: 3_600_000, maxWaitMs: 3_600_000 }],
    ["codes", { [key("codes")]: "404, 500" }, { codes: new Set([404, 500]) }],
    ["concurrency", { "napd.async-concurrency": "1" }, { concurrency: 1 }],
    ["places in the queue", { "napd.async-queue": "100000" }, { maxPending: 100_000 }],
    ["places that are none", { "napd.async-queue": "0" }, {}],
    ["attempts that are none", { [key("attempts")]: "0" }, {}],
    ["a wait that is none", { [key("min_wait")]: "soon" }, {}],
    ["codes that are none", { [key("codes")]: "404,abc" }, {}],
    ["no codes", { [key("codes")]: "" }, {}],
  ];
  for (const [says, annotations, changed] of rows)
    test(says, () => assert.deepEqual(asyncPolicyOf(annotations, asyncDefaults), { ...asyncDefaults, ...changed }));
});
