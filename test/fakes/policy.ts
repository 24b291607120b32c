import { type Policy, type PolicyDefaults, policyOf } from "../../src/functions/policy.ts";

/** What a daemon's settings would give, for tests that do not care. */
export const policyDefaults: PolicyDefaults = {
  timeoutMs: 60_000,
  pullPolicy: "Always",
  limits: { maxInFlight: 0, queue: 100, maxBodyBytes: 0 },
  scale: { sleeps: true, idleMs: 60_000, stopAfterMs: 3_600_000, auto: true },
};

/** A function's that says nothing of its own. */
export const plainPolicy: Policy = policyOf({ name: "web", namespace: "fn", image: "web:1" }, policyDefaults);
