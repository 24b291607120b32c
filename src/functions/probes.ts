import { parseDuration } from "../base/durations.ts";
import { AppError } from "../base/errors.ts";

/** How a replica is asked whether it is well: contracts/api.md §3.3, with Kubernetes' meaning and defaults. */
export interface Probe {
  /** A GET of it must answer 2xx or 3xx; null: the port must accept a connection. */
  readonly path: string | null;
  /** Before the first one, counted from the start of the process. */
  readonly initialDelayMs: number;
  readonly periodMs: number;
  /** For one answer. */
  readonly timeoutMs: number;
  /** So many in a row make it ready (again). */
  readonly successThreshold: number;
  /** So many in a row make it unready, or ill. */
  readonly failureThreshold: number;
}

export interface Probes {
  /** Must succeed before a replica is sent requests. */
  readonly ready: Probe;
  /** The longest pause between two of them while it starts, ms: short, because callers may wait for it. */
  readonly readyPauseMs: number;
  /** Whether a ready one is asked on and on, and taken off the route while it says no: when it has a path of its own. */
  readonly watchReady: boolean;
  /** Replicas that fail it are replaced; null: the process lives, that is enough. */
  readonly health: Probe | null;
}

const readyGroup = "com.openfaas.ready.http";
const healthGroup = "com.openfaas.health.http";

/** What a function's annotations say of its probes. Fails with BAD_FUNCTION, naming the annotation. */
export function probesOf(annotations: Readonly<Record<string, string>>): Probes {
  const hasHealth = Object.keys(annotations).some((key) => key.startsWith(`${healthGroup}.`));
  const health = hasHealth ? probe(annotations, healthGroup) : null;
  const ready = probe(annotations, readyGroup);
  return {
    // as OpenFaaS has it: who says how its health shows, and nothing else, is ready when it is healthy
    ready: { ...ready, path: ready.path ?? health?.path ?? null },
    readyPauseMs: annotations[`${readyGroup}.periodSeconds`] === undefined ? 100 : ready.periodMs,
    watchReady: ready.path !== null,
    health: health && { ...health, successThreshold: 1 },
  };
}

function probe(annotations: Readonly<Record<string, string>>, group: string): Probe {
  const number = (key: string, fallback: number, least: number): number => {
    const text = annotations[`${group}.${key}`];
    if (text === undefined) return fallback;
    if (/^\d{1,5}$/.test(text) && Number(text) >= least) return Number(text);
    throw bad(`${group}.${key}`, text, `is not a whole number from ${least} to 99999`);
  };
  return {
    path: path(annotations, `${group}.path`),
    initialDelayMs: olderDelayMs(annotations, group) ?? number("initialDelaySeconds", 0, 0) * 1000,
    periodMs: number("periodSeconds", 10, 1) * 1000,
    timeoutMs: number("timeoutSeconds", 1, 1) * 1000,
    successThreshold: number("successThreshold", 1, 1),
    failureThreshold: number("failureThreshold", 3, 1),
  };
}

/** The spelling before there was `initialDelaySeconds`; its value is a duration. The newer one wins. */
function olderDelayMs(annotations: Readonly<Record<string, string>>, group: string): number | undefined {
  const text = annotations[`${group}.initialDelay`];
  if (text === undefined || annotations[`${group}.initialDelaySeconds`] !== undefined) return undefined;
  const ms = parseDuration(text);
  if (ms !== undefined && ms >= 0 && ms < 1e8) return ms;
  throw bad(`${group}.initialDelay`, text, "is not a duration such as 5s");
}

function path(annotations: Readonly<Record<string, string>>, key: string): string | null {
  const text = annotations[key];
  if (text === undefined) return null;
  if (/^\/[\x21-\x7e]*$/.test(text)) return text;
  throw bad(key, text, "must be a path that begins with /");
}

function bad(key: string, text: string, why: string): AppError {
  return new AppError("BAD_FUNCTION", ["annotations", `${key} "${text}" ${why}`]);
}
