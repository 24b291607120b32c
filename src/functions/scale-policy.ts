import { parseDuration } from "../base/durations.ts";
import { AppError } from "../base/errors.ts";

/** Of load: calls a second, calls in flight, thousandths of a core. */
export type Measure = "rps" | "capacity" | "cpu";

/** When a function sleeps, and how many replicas its load asks for: contracts/api.md §3.2, §3.5. */
export interface ScalePolicy {
  /** Whether it is put to sleep when nobody calls it. */
  readonly sleeps: boolean;
  /** Without a call for so long it is frozen. */
  readonly idleMs: number;
  /** Frozen for so long it is stopped, which gives its memory back; infinite for never. */
  readonly stopAfterMs: number;
  /** Whether the number of replicas follows the load; else only people and alerts change it. */
  readonly follows: boolean;
  readonly measure: Measure;
  /** Load that one replica can carry, in the unit of `measure`, */
  readonly target: number;
  /** and how much of it one is to carry. */
  readonly proportion: number;
  /** The count goes down only to the highest that was right within this time. */
  readonly downWindowMs: number;
  /** Replicas that a firing alert adds, in percent of the maximum; 0: alerts add none. */
  readonly alertFactor: number;
}

export interface ScaleDefaults {
  readonly sleeps: boolean;
  readonly idleMs: number;
  readonly stopAfterMs: number;
  /** Whether load changes the number of replicas at all. */
  readonly auto: boolean;
}

/** Without a type and a target: the rule that OpenFaaS' own Prometheus alert has, more than 5 calls/s. */
const classicTarget = 5;
const defaultTarget = 50;
const defaultProportion = 0.9;
const defaultAlertFactor = 10;
const defaultDownWindowMs = 30_000;
const maxDownWindowMs = 300_000;

type Texts = Readonly<Record<string, string>>;

/** Fails with BAD_FUNCTION, naming the label or annotation. */
export function scalePolicyOf(
  labels: Texts,
  annotations: Texts,
  { minReplicas, maxReplicas }: { minReplicas: number; maxReplicas: number },
  defaults: ScaleDefaults,
): ScalePolicy {
  const type = typeOf(labels);
  const target = number(labels, "com.openfaas.scale.target", (n) => n > 0, "a number above zero");
  const proportion = number(
    labels,
    "com.openfaas.scale.target-proportion",
    (n) => n > 0 && n <= 1,
    "a number above 0 and at most 1",
  );
  const factor = number(
    labels,
    "com.openfaas.scale.factor",
    (n) => Number.isInteger(n) && n <= 100,
    "a whole number from 0 to 100",
  );
  const downWindow = duration("labels", labels, "com.openfaas.scale.down.window");
  if (downWindow !== undefined && downWindow > maxDownWindowMs)
    throw bad("labels", "com.openfaas.scale.down.window", labels, "at most 5m");
  const idleMs = duration("labels", labels, "com.openfaas.scale.zero-duration");
  if (idleMs === 0) throw bad("labels", "com.openfaas.scale.zero-duration", labels, "above zero");
  // a function that says nothing of all this keeps its one replica: more of them on one machine only cost memory
  const asks = type !== undefined || target !== undefined || labels["com.openfaas.scale.max"] !== undefined;
  const isStatic = minReplicas === maxReplicas || !defaults.auto || !asks;
  return {
    sleeps: boolean(labels, "com.openfaas.scale.zero") ?? defaults.sleeps,
    idleMs: idleMs ?? defaults.idleMs,
    stopAfterMs: stopAfter(annotations) ?? defaults.stopAfterMs,
    follows: !isStatic,
    measure: type ?? "rps",
    target: target ?? (type ? defaultTarget : classicTarget),
    proportion: proportion ?? defaultProportion,
    downWindowMs: downWindow ?? defaultDownWindowMs,
    alertFactor: factor ?? defaultAlertFactor,
  };
}

function typeOf(labels: Texts): Measure | undefined {
  const text = labels["com.openfaas.scale.type"];
  if (text === undefined || text === "rps" || text === "capacity" || text === "cpu") return text;
  throw bad("labels", "com.openfaas.scale.type", labels, "rps, capacity or cpu, which is what is measured here");
}

function stopAfter(annotations: Texts): number | undefined {
  if (annotations["napd.stop-after"] === "never") return Number.POSITIVE_INFINITY;
  return duration("annotations", annotations, "napd.stop-after", " or never");
}

function duration(field: string, texts: Texts, name: string, more = ""): number | undefined {
  const text = texts[name];
  if (text === undefined) return undefined;
  const ms = parseDuration(text);
  if (ms === undefined || ms < 0) throw bad(field, name, texts, `a duration such as 30s or 15m${more}`);
  return ms;
}

function number(texts: Texts, name: string, isRight: (n: number) => boolean, rule: string): number | undefined {
  const text = texts[name];
  if (text === undefined) return undefined;
  if (!/^(\d+\.?\d*|\.\d+)$/.test(text) || !isRight(Number(text))) throw bad("labels", name, texts, rule);
  return Number(text);
}

function boolean(texts: Texts, name: string): boolean | undefined {
  const text = texts[name]?.toLowerCase(); // stack files in YAML come with True and TRUE too
  if (text === undefined) return undefined;
  if (text !== "true" && text !== "false") throw bad("labels", name, texts, "true or false");
  return text === "true";
}

function bad(field: string, name: string, texts: Texts, rule: string): AppError {
  return new AppError("BAD_FUNCTION", [field, `${name} "${texts[name]}" is not ${rule}`]);
}

/**
 * How many replicas an alert of Alertmanager asks for: contracts/api.md §2.8. One that fires adds a step, anything
 * else goes back to the minimum. A function that was scaled to 0 is left alone by what does not fire.
 */
export function alertedReplicas(
  firing: boolean,
  current: number,
  { minReplicas, maxReplicas, alertFactor }: { minReplicas: number; maxReplicas: number; alertFactor: number },
): number {
  if (!firing) return current === 0 ? 0 : minReplicas;
  if (alertFactor === 0) return current;
  return Math.max(current, Math.min(maxReplicas, current + Math.ceil((maxReplicas * alertFactor) / 100)));
}
