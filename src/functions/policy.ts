import { parseDuration } from "../base/durations.ts";
import { AppError, isAppError } from "../base/errors.ts";
import { parseCpu, parseMemory } from "../base/quantities.ts";
import { type AsyncPolicy, asyncDefaults, asyncPolicyOf } from "./async-policy.ts";
import type { PullPolicy, ReplicaSpec, WatchdogChoice } from "./backend.ts";
import { type CallLimits, callLimits, noLimits } from "./call-limits.ts";
import { type Probes, probesOf } from "./probes.ts";
import { type ScaleDefaults, type ScalePolicy, scalePolicyOf } from "./scale-policy.ts";
import type { FunctionSpec } from "./spec.ts";

/** What a function's labels, annotations and limits come to. */
export interface Policy {
  readonly minReplicas: number;
  readonly maxReplicas: number;
  /** For a whole call, wake-up included. */
  readonly timeoutMs: number;
  /** Which setting `timeoutMs` comes from, for the message of a 504. */
  readonly timeoutSource: string;
  readonly probes: Probes;
  readonly pullPolicy: PullPolicy;
  readonly watchdog: WatchdogChoice;
  readonly scale: ScalePolicy;
  readonly limits: CallLimits;
  readonly async: AsyncPolicy;
}

export interface PolicyDefaults {
  readonly scale: ScaleDefaults;
  readonly timeoutMs: number;
  readonly pullPolicy: PullPolicy;
  /** None if left out. */
  readonly limits?: CallLimits;
  /** Those of the contract if left out. */
  readonly async?: AsyncPolicy;
}

/** Fails with BAD_FUNCTION, naming the label or annotation. */
export function policyOf(spec: FunctionSpec, defaults: PolicyDefaults): Policy {
  const labels = spec.labels ?? {};
  const annotations = spec.annotations ?? {};
  const minReplicas = count(labels, "com.openfaas.scale.min", 1);
  const maxReplicas = count(labels, "com.openfaas.scale.max", Math.max(20, minReplicas));
  if (minReplicas > maxReplicas)
    throw new AppError("BAD_FUNCTION", [
      "labels",
      `com.openfaas.scale.min ${minReplicas} is above com.openfaas.scale.max ${maxReplicas}`,
    ]);
  const timeout = annotations["napd.timeout"];
  const timeoutMs = timeout === undefined ? defaults.timeoutMs : parseDuration(timeout);
  if (timeoutMs === undefined || timeoutMs <= 0)
    throw new AppError("BAD_FUNCTION", [
      "annotations",
      `napd.timeout "${timeout}" is not a duration above zero such as 30s`,
    ]);
  return {
    minReplicas,
    maxReplicas,
    timeoutMs,
    timeoutSource: timeout === undefined ? "setting gateway.upstream_timeout" : "annotation napd.timeout",
    probes: probesOf(annotations),
    pullPolicy: pullPolicy(annotations["napd.pull-policy"]) ?? defaults.pullPolicy,
    watchdog: watchdog(annotations["napd.watchdog"]),
    scale: scalePolicyOf(labels, annotations, { minReplicas, maxReplicas }, defaults.scale),
    limits: callLimits(annotations, defaults.limits ?? noLimits),
    async: asyncPolicyOf(annotations, defaults.async ?? asyncDefaults),
  };
}

/** Of a function that was deployed once, by this napd or an older one: what is refused by now counts as not said. */
export function storedPolicyOf(spec: FunctionSpec, defaults: PolicyDefaults): Policy {
  return readStored(spec, (readable) => policyOf(readable, defaults));
}

/** What `read` makes of a stored spec or, if it refuses a label or an annotation, of the spec without any. */
export function readStored<T>(spec: FunctionSpec, read: (spec: FunctionSpec) => T): T {
  try {
    return read(spec);
  } catch (e) {
    if (!isAppError(e, "BAD_FUNCTION")) throw e;
    return read({ ...spec, labels: {}, annotations: {} });
  }
}

function count(labels: Record<string, string>, label: string, fallback: number): number {
  const text = labels[label];
  if (text === undefined) return fallback;
  if (!/^\d{1,4}$/.test(text))
    throw new AppError("BAD_FUNCTION", ["labels", `${label} "${text}" is not a whole number from 0 to 9999`]);
  return Math.max(1, Number(text));
}

function pullPolicy(text: string | undefined): PullPolicy | undefined {
  if (text === undefined || text === "Always" || text === "IfNotPresent" || text === "Never") return text;
  throw new AppError("BAD_FUNCTION", [
    "annotations",
    `napd.pull-policy "${text}" is not Always, IfNotPresent or Never`,
  ]);
}

function watchdog(text: string | undefined): WatchdogChoice {
  if (text === undefined) return "auto";
  if (text === "inject" || text === "image") return text;
  throw new AppError("BAD_FUNCTION", ["annotations", `napd.watchdog "${text}" is not inject or image`]);
}

/** What a backend is told to start as this replica of a function. `image` is the prepared one, `policy` is `spec`'s. */
export function replicaSpec(
  spec: FunctionSpec,
  image: string,
  policy: Policy,
  generation: number,
  number: number,
): ReplicaSpec {
  const { fprocess, ...envVars } = spec.envVars ?? {};
  const process = spec.envProcess || fprocess;
  const memoryBytes = spec.limits?.memory ? parseMemory(spec.limits.memory) : undefined;
  const cpus = spec.limits?.cpu ? parseCpu(spec.limits.cpu) : undefined;
  return {
    name: spec.name,
    namespace: spec.namespace,
    generation,
    number,
    image,
    env: {
      ...envVars,
      ...(process && { fprocess: process }),
      OPENFAAS_NAME: spec.name,
      OPENFAAS_NAMESPACE: spec.namespace,
    },
    secrets: spec.secrets ?? [],
    ...(memoryBytes !== undefined && { memoryBytes }),
    ...(cpus !== undefined && { cpus }),
    readOnlyRoot: spec.readOnlyRootFilesystem ?? false,
    watchdog: policy.watchdog,
  };
}
