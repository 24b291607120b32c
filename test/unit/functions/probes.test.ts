import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { type Probe, probesOf } from "../../../src/functions/probes.ts";

const standard: Probe = {
  path: null,
  initialDelayMs: 0,
  periodMs: 10_000,
  timeoutMs: 1000,
  successThreshold: 1,
  failureThreshold: 3,
};
const ready = (key: string) => `com.openfaas.ready.http.${key}`;
const health = (key: string) => `com.openfaas.health.http.${key}`;

suite("a function's probes", () => {
  test("without annotations: the port must be open once, and living is healthy", () => {
    assert.deepEqual(probesOf({ topic: "x" }), {
      ready: standard,
      readyPauseMs: 100,
      watchReady: false,
      health: null,
    });
  });

  test("of readiness, with everything said", () => {
    const all = {
      [ready("path")]: "/ready?deep=1",
      [ready("initialDelaySeconds")]: "2",
      [ready("periodSeconds")]: "5",
      [ready("timeoutSeconds")]: "3",
      [ready("successThreshold")]: "2",
      [ready("failureThreshold")]: "4",
    };
    assert.deepEqual(probesOf(all), {
      ready: {
        ...{ path: "/ready?deep=1", initialDelayMs: 2000, periodMs: 5000, timeoutMs: 3000 },
        ...{ successThreshold: 2, failureThreshold: 4 },
      },
      readyPauseMs: 5000,
      watchReady: true,
      health: null,
    });
  });

  test("of health, with everything said; its path is readiness' too unless that has one", () => {
    const all = {
      [health("path")]: "/_/health",
      [health("initialDelaySeconds")]: "1",
      [health("periodSeconds")]: "2",
      [health("timeoutSeconds")]: "3",
      [health("failureThreshold")]: "1",
    };
    const probes = probesOf(all);
    assert.deepEqual(probes.health, {
      ...{ path: "/_/health", initialDelayMs: 1000, periodMs: 2000, timeoutMs: 3000 },
      ...{ successThreshold: 1, failureThreshold: 1 },
    });
    assert.deepEqual([probes.ready.path, probes.watchReady], ["/_/health", false]);
    assert.equal(probesOf({ ...all, [ready("path")]: "/_/ready" }).ready.path, "/_/ready");
  });

  test("of health without a path ask the port", () => {
    assert.deepEqual(probesOf({ [health("periodSeconds")]: "3" }).health, { ...standard, periodMs: 3000 });
  });

  const delays: { says: string; annotations: Record<string, string>; ms: number }[] = [
    { says: "in the older spelling, a duration", annotations: { [health("initialDelay")]: "1m30s" }, ms: 90_000 },
    { says: "in the older spelling, seconds", annotations: { [health("initialDelay")]: "30" }, ms: 30_000 },
    {
      says: "in both, of which the newer wins",
      annotations: { [health("initialDelay")]: "30s", [health("initialDelaySeconds")]: "5" },
      ms: 5000,
    },
  ];
  for (const { says, annotations, ms } of delays)
    test(`with a first delay ${says}`, () => assert.equal(probesOf(annotations).health?.initialDelayMs, ms));

  const refusals: [key: string, value: string, why: RegExp][] = [
    [ready("path"), "ready", /must be a path that begins with \//],
    [ready("path"), "/with space", /must be a path/],
    [ready("initialDelaySeconds"), "-1", /whole number from 0 to 99999/],
    [ready("initialDelaySeconds"), "2s", /whole number/],
    [ready("periodSeconds"), "0", /whole number from 1/],
    [ready("timeoutSeconds"), "1.5", /whole number/],
    [ready("successThreshold"), "0", /whole number from 1/],
    [ready("failureThreshold"), "many", /whole number/],
    [health("path"), "", /must be a path/],
    [health("initialDelay"), "soon", /is not a duration/],
    [health("initialDelay"), "-3s", /is not a duration/],
    [health("periodSeconds"), "100000", /whole number/],
    [health("timeoutSeconds"), "", /whole number/],
    [health("failureThreshold"), "0", /whole number from 1/],
  ];
  for (const [key, value, why] of refusals)
    test(`${key} "${value}" is refused, and the refusal names it`, () =>
      assert.throws(
        () => probesOf({ [key]: value }),
        (e) => isAppError(e, "BAD_FUNCTION") && e.message.includes(`${key} "${value}"`) && why.test(e.message),
      ));
});
