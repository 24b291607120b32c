import { parseDuration } from "../base/durations.ts";

/** How the queue delivers the calls of one function: contracts/api.md §4.3. */
export interface AsyncPolicy {
  /** Deliveries under way at a time. */
  readonly concurrency: number;
  /** Calls and callbacks that may wait or be under way. */
  readonly maxPending: number;
  /** Of one call, the first one included. */
  readonly attempts: number;
  readonly minWaitMs: number;
  readonly maxWaitMs: number;
  /** How much of a wait is by chance: nothing, half of it, all of it. */
  readonly backoff: "exponential" | "equal" | "full";
  /** Statuses that are tried again. */
  readonly codes: ReadonlySet<number>;
  /** How long results are kept, ms; 0: not at all. */
  readonly keepResultsMs: number;
}

export const asyncDefaults: AsyncPolicy = {
  concurrency: 10,
  maxPending: 50_000,
  attempts: 10,
  minWaitMs: 10_000,
  maxWaitMs: 120_000,
  backoff: "equal",
  codes: new Set([408, 429, 500, 502, 503, 504]),
  keepResultsMs: 0,
};

/**
 * Reads annotations `com.openfaas.retry.attempts`, `.min_wait`, `.max_wait`, `.codes`, `napd.async-concurrency`,
 * `napd.async-queue` and `napd.async-results`.
 * What cannot be read counts as not said, as the contract has it.
 */
export function asyncPolicyOf(annotations: Readonly<Record<string, string>>, defaults: AsyncPolicy): AsyncPolicy {
  const minWaitMs = wait(annotations["com.openfaas.retry.min_wait"]) ?? defaults.minWaitMs;
  return {
    concurrency: count(annotations["napd.async-concurrency"]) ?? defaults.concurrency,
    maxPending: count(annotations["napd.async-queue"], 8) ?? defaults.maxPending,
    attempts: count(annotations["com.openfaas.retry.attempts"]) ?? defaults.attempts,
    minWaitMs,
    maxWaitMs: Math.max(minWaitMs, wait(annotations["com.openfaas.retry.max_wait"]) ?? defaults.maxWaitMs),
    backoff: defaults.backoff,
    codes: codes(annotations["com.openfaas.retry.codes"]) ?? defaults.codes,
    keepResultsMs: keep(annotations["napd.async-results"]) ?? defaults.keepResultsMs,
  };
}

function count(text: string | undefined, digits = 4): number | undefined {
  return text !== undefined && /^[1-9]\d*$/.test(text) && text.length <= digits ? Number(text) : undefined;
}

function wait(text: string | undefined): number | undefined {
  const ms = text === undefined ? undefined : parseDuration(text);
  return ms !== undefined && ms >= 0 ? ms : undefined;
}

function keep(text: string | undefined): number | undefined {
  return text === "off" ? 0 : wait(text);
}

function codes(text: string | undefined): ReadonlySet<number> | undefined {
  const list = text?.split(",").map((code) => code.trim());
  return list?.every((code) => /^[1-5]\d\d$/.test(code)) ? new Set(list.map(Number)) : undefined;
}
