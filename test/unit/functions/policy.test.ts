import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { asyncDefaults } from "../../../src/functions/async-policy.ts";
import { policyOf, replicaSpec } from "../../../src/functions/policy.ts";
import { probesOf } from "../../../src/functions/probes.ts";
import type { FunctionSpec } from "../../../src/functions/spec.ts";
import { policyDefaults as defaults } from "../../fakes/policy.ts";

const web: FunctionSpec = { name: "web", namespace: "fn", image: "web:1" };

suite("a function's policy", () => {
  test("without labels and annotations is the daemon's", () => {
    assert.deepEqual(policyOf(web, defaults), {
      minReplicas: 1,
      maxReplicas: 20,
      timeoutMs: 60_000,
      timeoutSource: "setting gateway.upstream_timeout",
      probes: probesOf({}),
      pullPolicy: "Always",
      watchdog: "auto",
      scale: {
        ...{ sleeps: true, idleMs: 60_000, stopAfterMs: 3_600_000 },
        ...{ follows: false, measure: "rps", target: 5, proportion: 0.9, downWindowMs: 30_000, alertFactor: 10 },
      },
      limits: defaults.limits,
      async: asyncDefaults,
    });
  });

  const labels: { says: string; labels: Record<string, string>; min: number; max: number }[] = [
    { says: "the least number", labels: { "com.openfaas.scale.min": "3" }, min: 3, max: 20 },
    { says: "the greatest number", labels: { "com.openfaas.scale.max": "5" }, min: 1, max: 5 },
    { says: "both", labels: { "com.openfaas.scale.min": "2", "com.openfaas.scale.max": "2" }, min: 2, max: 2 },
    { says: "more than the usual most as the least", labels: { "com.openfaas.scale.min": "50" }, min: 50, max: 50 },
    {
      says: "none as the least, which is one: sleep is another matter",
      labels: { "com.openfaas.scale.min": "0" },
      min: 1,
      max: 20,
    },
    { says: "what is nobody's", labels: { "com.openfaas.ui.ext": "x", team: "a" }, min: 1, max: 20 },
  ];
  for (const row of labels)
    test(`takes from the labels ${row.says}`, () => {
      const { minReplicas, maxReplicas } = policyOf({ ...web, labels: row.labels }, defaults);
      assert.deepEqual([minReplicas, maxReplicas], [row.min, row.max]);
    });

  const annotations: { name: string; value: string; expect: object }[] = [
    { name: "napd.timeout", value: "90s", expect: { timeoutMs: 90_000, timeoutSource: "annotation napd.timeout" } },
    { name: "napd.timeout", value: "5", expect: { timeoutMs: 5000, timeoutSource: "annotation napd.timeout" } },
    { name: "napd.pull-policy", value: "Never", expect: { pullPolicy: "Never" } },
    { name: "napd.pull-policy", value: "IfNotPresent", expect: { pullPolicy: "IfNotPresent" } },
    { name: "napd.watchdog", value: "inject", expect: { watchdog: "inject" } },
    { name: "napd.watchdog", value: "image", expect: { watchdog: "image" } },
    { name: "topic", value: "x", expect: {} },
  ];
  for (const { name, value, expect } of annotations)
    test(`takes from the annotations ${name} = ${value}`, () =>
      assert.deepEqual(policyOf({ ...web, annotations: { [name]: value } }, defaults), {
        ...policyOf(web, defaults),
        ...expect,
      }));

  const bad: { says: string; spec: Partial<FunctionSpec>; text: RegExp }[] = [
    {
      says: "a least number that is none",
      spec: { labels: { "com.openfaas.scale.min": "two" } },
      text: /scale\.min "two"/,
    },
    { says: "a negative number", spec: { labels: { "com.openfaas.scale.min": "-1" } }, text: /scale\.min/ },
    { says: "half a replica", spec: { labels: { "com.openfaas.scale.max": "1.5" } }, text: /scale\.max/ },
    { says: "an empty number", spec: { labels: { "com.openfaas.scale.max": "" } }, text: /scale\.max/ },
    { says: "a number out of all reason", spec: { labels: { "com.openfaas.scale.max": "10000" } }, text: /9999/ },
    {
      says: "a least number above the greatest",
      spec: { labels: { "com.openfaas.scale.min": "3", "com.openfaas.scale.max": "2" } },
      text: /scale\.min 3 is above com\.openfaas\.scale\.max 2/,
    },
    { says: "a timeout that is none", spec: { annotations: { "napd.timeout": "soon" } }, text: /napd\.timeout "soon"/ },
    { says: "a timeout of zero", spec: { annotations: { "napd.timeout": "0" } }, text: /above zero/ },
    { says: "a negative timeout", spec: { annotations: { "napd.timeout": "-5s" } }, text: /above zero/ },
    {
      says: "a ready path that is none",
      spec: { annotations: { "com.openfaas.ready.http.path": "ready" } },
      text: /begins with \//,
    },
    {
      says: "a ready path with a blank",
      spec: { annotations: { "com.openfaas.ready.http.path": "/a b" } },
      text: /ready\.http\.path/,
    },
    {
      says: "a ready path with a line break",
      spec: { annotations: { "com.openfaas.ready.http.path": "/a\r\nX: y" } },
      text: /ready\.http\.path/,
    },
    {
      says: "a pull policy that is none",
      spec: { annotations: { "napd.pull-policy": "always" } },
      text: /Always, IfNotPresent or Never/,
    },
    { says: "a watchdog that is none", spec: { annotations: { "napd.watchdog": "auto" } }, text: /inject or image/ },
  ];
  for (const { says, spec, text } of bad)
    test(`refuses ${says}, by name`, () =>
      assert.throws(
        () => policyOf({ ...web, ...spec }, defaults),
        (e) => isAppError(e, "BAD_FUNCTION") && text.test(e.message),
      ));
});

suite("what a replica is started with", () => {
  const own = { OPENFAAS_NAME: "web", OPENFAAS_NAMESPACE: "fn" };
  const of = (spec: Partial<FunctionSpec>) =>
    replicaSpec({ ...web, ...spec }, "pin", policyOf({ ...web, ...spec }, defaults), 7, 2);

  test("is its identity, the prepared image and nothing that nobody asked for", () => {
    assert.deepEqual(of({}), {
      ...{ name: "web", namespace: "fn", generation: 7, number: 2, image: "pin" },
      ...{ env: own, secrets: [], readOnlyRoot: false, watchdog: "auto" },
    });
  });

  test("has limits as numbers, secrets and the read-only root", () => {
    const { memoryBytes, cpus, secrets, readOnlyRoot } = of({
      limits: { memory: "128Mi", cpu: "500m" },
      secrets: ["key"],
      readOnlyRootFilesystem: true,
    });
    assert.deepEqual([memoryBytes, cpus, secrets, readOnlyRoot], [128 * 2 ** 20, 0.5, ["key"], true]);
  });

  test("has no limit where the text is empty, nor one from what is only requested", () => {
    const spec = of({ limits: { memory: "", cpu: "" }, requests: { memory: "1Gi", cpu: "1" } });
    assert.deepEqual([spec.memoryBytes, spec.cpus], [undefined, undefined]);
  });

  const envs: { says: string; spec: Partial<FunctionSpec>; env: Record<string, string> }[] = [
    { says: "variables come as they are", spec: { envVars: { A: "b=c\n" } }, env: { A: "b=c\n" } },
    { says: "the process is a variable", spec: { envProcess: "cat" }, env: { fprocess: "cat" } },
    { says: "the process may come as a variable", spec: { envVars: { fprocess: "cat" } }, env: { fprocess: "cat" } },
    {
      says: "the process' own field wins",
      spec: { envProcess: "wc", envVars: { fprocess: "cat", A: "b" } },
      env: { A: "b", fprocess: "wc" },
    },
    { says: "nobody can be somebody else", spec: { envVars: { OPENFAAS_NAME: "root" } }, env: {} },
  ];
  for (const { says, spec, env } of envs) test(`${says}`, () => assert.deepEqual(of(spec).env, { ...env, ...own }));
});
