import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { policyOf } from "../../../src/functions/policy.ts";
import { alertedReplicas, type ScaleDefaults, type ScalePolicy } from "../../../src/functions/scale-policy.ts";
import { policyDefaults } from "../../fakes/policy.ts";

const web = { name: "web", namespace: "fn", image: "web:1" };

/** Labels by what stands behind com.openfaas.scale. */
const named = (labels: Record<string, string>) =>
  Object.fromEntries(Object.entries(labels).map(([name, value]) => [`com.openfaas.scale.${name}`, value]));

function scaleOf(
  labels: Record<string, string>,
  annotations: Record<string, string> = {},
  defaults: Partial<ScaleDefaults> = {},
): ScalePolicy {
  return policyOf(
    { ...web, labels: named(labels), annotations },
    { ...policyDefaults, scale: { ...policyDefaults.scale, ...defaults } },
  ).scale;
}

suite("how a function sleeps", () => {
  const rows: {
    says: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    defaults?: Partial<ScaleDefaults>;
    expect: Partial<ScalePolicy>;
  }[] = [
    {
      says: "as the settings say, without labels",
      expect: { sleeps: true, idleMs: 60_000, stopAfterMs: 3_600_000 },
    },
    { says: "not, by its label", labels: { zero: "false" }, expect: { sleeps: false } },
    {
      says: "by its label, where the settings say not",
      labels: { zero: "true" },
      defaults: { sleeps: false },
      expect: { sleeps: true },
    },
    { says: "by a label as YAML writes it", labels: { zero: "False" }, expect: { sleeps: false } },
    { says: "after a time of its own", labels: { "zero-duration": "15m" }, expect: { idleMs: 900_000 } },
    { says: "after seconds without a unit", labels: { "zero-duration": "5" }, expect: { idleMs: 5000 } },
    { says: "until it is stopped", annotations: { "napd.stop-after": "10m" }, expect: { stopAfterMs: 600_000 } },
    { says: "not at all but is stopped at once", annotations: { "napd.stop-after": "0s" }, expect: { stopAfterMs: 0 } },
    {
      says: "for ever",
      annotations: { "napd.stop-after": "never" },
      expect: { stopAfterMs: Number.POSITIVE_INFINITY },
    },
  ];
  for (const { says, labels = {}, annotations = {}, defaults = {}, expect } of rows)
    test(says, () => {
      const policy = scaleOf(labels, annotations, defaults);
      assert.deepEqual({ ...policy, ...expect }, policy);
    });
});

suite("how a function follows its load", () => {
  const rows: { says: string; labels: Record<string, string>; auto?: boolean; expect: Partial<ScalePolicy> }[] = [
    { says: "not, without labels about it", labels: { min: "2", zero: "true" }, expect: { follows: false } },
    {
      says: "by the classic rule, with a maximum only",
      labels: { max: "2" },
      expect: { follows: true, measure: "rps", target: 5 },
    },
    { says: "not, with the least the most", labels: { min: "2", max: "2", type: "rps" }, expect: { follows: false } },
    { says: "not, where the setting is off", labels: { max: "2" }, auto: false, expect: { follows: false } },
    { says: "by calls a second", labels: { type: "rps" }, expect: { follows: true, measure: "rps", target: 50 } },
    {
      says: "by calls in flight",
      labels: { type: "capacity" },
      expect: { follows: true, measure: "capacity", target: 50 },
    },
    { says: "by CPU", labels: { type: "cpu", target: "500" }, expect: { follows: true, measure: "cpu", target: 500 } },
    {
      says: "to a target",
      labels: { target: "10", "target-proportion": "0.5" },
      expect: { follows: true, measure: "rps", target: 10, proportion: 0.5 },
    },
    { says: "down after half a minute", labels: { max: "2" }, expect: { downWindowMs: 30_000 } },
    { says: "down after a window of its own", labels: { "down.window": "5m" }, expect: { downWindowMs: 300_000 } },
    { says: "down at once", labels: { "down.window": "0s" }, expect: { downWindowMs: 0 } },
    { says: "by tenths at an alert", labels: {}, expect: { alertFactor: 10 } },
    { says: "by a factor of its own at an alert", labels: { factor: "50" }, expect: { alertFactor: 50 } },
    { says: "not at an alert", labels: { factor: "0" }, expect: { alertFactor: 0 } },
  ];
  for (const { says, labels, auto = true, expect } of rows)
    test(says, () => {
      const policy = scaleOf(labels, {}, { auto });
      assert.deepEqual({ ...policy, ...expect }, policy);
    });
});

suite("what is no way to scale or to sleep is refused, by its name", () => {
  const labels: [name: string, value: string, rule: RegExp][] = [
    ["zero", "yes", /true or false/],
    ["zero-duration", "soon", /duration/],
    ["zero-duration", "-5s", /duration/],
    ["zero-duration", "0s", /above zero/],
    ["type", "queue", /rps, capacity or cpu/],
    ["type", "", /rps, capacity or cpu/],
    ["target", "0", /above zero/],
    ["target", "many", /above zero/],
    ["target", "1e3", /above zero/],
    ["target-proportion", "1.1", /at most 1/],
    ["target-proportion", "0", /above 0/],
    ["down.window", "301s", /at most 5m/],
    ["down.window", "x", /duration/],
    ["factor", "101", /0 to 100/],
    ["factor", "-1", /0 to 100/],
    ["factor", "1.5", /0 to 100/],
  ];
  for (const [name, value, rule] of labels)
    test(`label ${name} = "${value}"`, () =>
      assert.throws(
        () => scaleOf({ [name]: value }),
        (e) => isAppError(e, "BAD_FUNCTION") && rule.test(e.message) && e.message.includes(`scale.${name} "${value}"`),
      ));
  for (const value of ["later", "-1s", ""])
    test(`annotation napd.stop-after = "${value}"`, () =>
      assert.throws(
        () => scaleOf({}, { "napd.stop-after": value }),
        (e) => isAppError(e, "BAD_FUNCTION") && /napd\.stop-after ".*" is not a duration .* or never/.test(e.message),
      ));
});

suite("an alert", () => {
  const rows: {
    says: string;
    firing: boolean;
    current: number;
    min?: number;
    max?: number;
    factor?: number;
    to: number;
  }[] = [
    { says: "that fires adds a step", firing: true, current: 1, to: 3 },
    { says: "adds a step that is rounded up", firing: true, current: 1, max: 5, to: 2 },
    { says: "stops at the maximum", firing: true, current: 19, to: 20 },
    { says: "never takes away", firing: true, current: 30, to: 30 },
    { says: "with the whole maximum as its step goes there at once", firing: true, current: 1, factor: 100, to: 20 },
    { says: "without a step changes nothing", firing: true, current: 1, factor: 0, to: 1 },
    { says: "that is over goes back to the least", firing: false, current: 7, min: 2, to: 2 },
    { says: "that is over leaves alone what was scaled to 0", firing: false, current: 0, to: 0 },
    { says: "that fires wakes what was scaled to 0", firing: true, current: 0, to: 2 },
  ];
  for (const { says, firing, current, min = 1, max = 20, factor = 10, to } of rows)
    test(says, () =>
      assert.equal(alertedReplicas(firing, current, { minReplicas: min, maxReplicas: max, alertFactor: factor }), to),
    );
});
