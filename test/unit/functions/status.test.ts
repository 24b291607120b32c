import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { CallStats } from "../../../src/functions/call-stats.ts";
import type { Observed } from "../../../src/functions/managed.ts";
import { policyOf } from "../../../src/functions/policy.ts";
import { type FunctionStatus, statusOf } from "../../../src/functions/status.ts";
import { policyDefaults } from "../../fakes/policy.ts";

const spec = { name: "web", namespace: "fn", image: "web:1" };

function observed(more: Partial<Omit<Observed, "row">> & { row?: Partial<Observed["row"]> } = {}): Observed {
  const { row, ...rest } = more;
  return {
    row: {
      ...{ name: "web", namespace: "fn", version: { spec, image: "pin" }, generation: 1, previous: null },
      ...{ replicas: 1, stopped: false, failure: null, createdAt: Date.UTC(2026, 0, 2, 3, 4, 5, 678) },
      ...row,
    },
    ...{ available: 1, calls: calls(5), states: { ready: 1 }, starting: false, reason: null },
    ...{ restarts: 0, lastFailure: null },
    policy: policyOf(spec, policyDefaults),
    ...rest,
  };
}

function calls(count: number): CallStats {
  const stats = new CallStats();
  for (let i = 0; i < count; i++) {
    stats.begin();
    stats.end(200, 0.001);
  }
  return stats;
}

suite("a function's status", () => {
  test("is what was asked for, and what there is", () => {
    assert.deepEqual(statusOf(observed()), {
      ...spec,
      ...{ invocationCount: 5, replicas: 1, availableReplicas: 1 },
      ...{ createdAt: "2026-01-02T03:04:05.678Z", state: "Ready" },
    });
  });

  test("echoes every field of the deploy, verbatim", () => {
    const full = {
      ...spec,
      ...{ envProcess: "cat", envVars: { A: "b=c" }, constraints: ["x"], secrets: ["s"], labels: {} },
      ...{ annotations: { a: "b" }, limits: { memory: "128M" }, requests: { cpu: "1000m" } },
      readOnlyRootFilesystem: true,
    };
    const status = statusOf(observed({ row: { version: { spec: full, image: "pin" } } })) as unknown as Record<
      string,
      unknown
    >;
    for (const [key, value] of Object.entries(full)) assert.deepEqual(status[key], value, key);
  });

  test("tells nothing of the prepared image", () => {
    assert.doesNotMatch(JSON.stringify(statusOf(observed())), /pin/);
  });

  const previous = { version: { spec, image: "old" }, generation: 0 };
  const rows: { says: string; given: Parameters<typeof observed>[0]; state: FunctionStatus["state"] }[] = [
    { says: "all replicas serve", given: {}, state: "Ready" },
    { says: "all replicas serve although an update failed", given: { reason: "update failed" }, state: "Ready" },
    {
      says: "the old version serves and the new one starts",
      given: { row: { previous }, starting: true },
      state: "Deploying",
    },
    { says: "the old version serves while the new one waits", given: { row: { previous } }, state: "Deploying" },
    { says: "none serves yet", given: { available: 0, starting: true }, state: "Deploying" },
    { says: "none serves and there is a reason", given: { available: 0, reason: "exited" }, state: "Failed" },
    {
      says: "none serves, there is a reason, and it is tried again",
      given: { available: 0, starting: true, reason: "exited" },
      state: "Failed",
    },
    { says: "some serve", given: { row: { replicas: 3 }, available: 2, reason: "exited" }, state: "Degraded" },
    { says: "none is wanted", given: { row: { replicas: 0 }, available: 0, states: {} }, state: "Stopped" },
    {
      says: "none is wanted and one is kept",
      given: { row: { replicas: 0 }, available: 0, states: { frozen: 1 } },
      state: "Asleep",
    },
    { says: "all sleep", given: { states: { frozen: 1 } }, state: "Asleep" },
    {
      says: "all sleep while a new version comes",
      given: { states: { frozen: 1 }, row: { previous } },
      state: "Deploying",
    },
    { says: "it was stopped for want of calls", given: { row: { stopped: true } }, state: "Stopped" },
    {
      says: "it was stopped, and its last replica is on its way out",
      given: { row: { stopped: true, replicas: 0 }, available: 0, states: { frozen: 1 } },
      state: "Stopped",
    },
    {
      says: "none is wanted and the last one leaves",
      given: { row: { replicas: 0 }, available: 0, states: { stopping: 1 } },
      state: "Stopped",
    },
  ];
  for (const { says, given, state } of rows)
    test(`is ${state} when ${says}`, () => assert.equal(statusOf(observed(given)).state, state));

  test("has a reason when there is one", () => {
    assert.equal(statusOf(observed({ reason: "exited with code 1" })).reason, "exited with code 1");
    assert.ok(!("reason" in statusOf(observed())));
  });

  test("has numbers that are whole, for Go clients take no other", () => {
    const { replicas, availableReplicas, invocationCount } = statusOf(observed({ available: 0, calls: calls(0) }));
    assert.deepEqual([replicas, availableReplicas, invocationCount], [1, 0, 0]);
  });
});
