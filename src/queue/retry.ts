import { backoffMs } from "../base/backoff.ts";

/** How often and when a message is tried again: contracts/api.md §4.3. */
export interface RetryPolicy {
  /** The first one included. */
  readonly attempts: number;
  readonly minWaitMs: number;
  readonly maxWaitMs: number;
  /** How much of a wait is by chance: nothing, half of it, all of it. */
  readonly backoff: "exponential" | "equal" | "full";
  /** Statuses that may become better. */
  readonly codes: ReadonlySet<number>;
}

/** What came of an attempt. */
export interface Result {
  readonly status: number;
  /** It is the platform's answer, not the function's: the function was not there, or did not answer. */
  readonly isInternal: boolean;
  /** Value of Retry-After, if there is one. */
  readonly retryAfter: string | undefined;
}

/** `done`: nothing more to do; `dead`: it should have been tried again, and was often enough; or ms to wait. */
export type Decision = "done" | "dead" | { readonly waitMs: number };

/** `attempts`: those made, this one included. `random`: from 0 to 1. */
export function decide(result: Result, attempts: number, policy: RetryPolicy, now: number, random: number): Decision {
  const { status, isInternal, retryAfter } = result;
  if (!policy.codes.has(status) && !(isInternal && status >= 400)) return "done";
  if (attempts >= policy.attempts) return "dead";
  const asked = status === 429 || status === 503 ? parseRetryAfter(retryAfter, now) : undefined;
  if (asked !== undefined) return { waitMs: Math.max(policy.minWaitMs, Math.min(asked, maxAskedMs)) };
  const wait = backoffMs(attempts - 1, policy.minWaitMs, policy.maxWaitMs);
  return { waitMs: Math.round(wait * share[policy.backoff](random)) };
}

/** What failed together does not come back together. */
const share = {
  exponential: () => 1,
  equal: (random: number) => 0.5 + random / 2,
  full: (random: number) => random,
};

/** A function may ask for patience, not for ever. */
const maxAskedMs = 24 * 3_600_000;

/** Ms of delay-seconds or of an HTTP-date (RFC 9110 §10.2.3); undefined when it is neither. */
function parseRetryAfter(text: string | undefined, now: number): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,10}$/.test(text)) return Number(text) * 1000;
  const at = /^[A-Z][a-z]{2}, /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}
