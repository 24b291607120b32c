import { backoffMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";

/** Waiting times before what failed is tried again. */
export const retryMinMs = 500;
export const retryMaxMs = 60_000;
/** A replica that was ready for so long has not failed to start: its crash counts as the first. */
const stableMs = 30_000;
/** After so many failures in a row, callers are told at once instead of being kept waiting. */
const patience = 3;

export interface Failure {
  readonly reason: string;
  /** Ms since the epoch. */
  readonly at: number;
  /** Of its process, if it had one that ended by itself. */
  readonly exitCode?: number;
}

/** How a function that fails is tried again: at once, then ever more slowly. Times are monotonic ms. */
export class Retries {
  /** Why a replica was lost last; null while all is well. */
  reason: string | null = null;
  /** Failures of this version since napd runs, each of which made it start a replica again; and the last one. */
  restarts = 0;
  last: Failure | null = null;
  #failures = 0;
  #due = 0;
  #lastAt = Number.NEGATIVE_INFINITY;
  #waiting: AbortController | null = null;

  /** Somebody should be told at once: waiting would be in vain. */
  get hopeless(): boolean {
    return this.reason !== null && this.#failures >= patience;
  }

  failed(failure: Failure, now: number): void {
    this.reason = failure.reason;
    this.last = failure;
    this.restarts++;
    this.#lastAt = now;
    this.#due = now + (this.#failures === 0 ? 0 : backoffMs(this.#failures - 1, retryMinMs, retryMaxMs));
    this.#failures++;
  }

  /**
   * A replica that got ready at `readySince` has been well until now: if that was long, what failed before is
   * forgotten, unless another replica has failed meanwhile.
   */
  served(readySince: number | null, now: number): void {
    if (readySince !== null && now - Math.max(readySince, this.#lastAt) > stableMs) this.#failures = 0;
  }

  /** What failed before does not count any more. */
  forgive(): void {
    this.#failures = 0;
    this.#due = 0;
    this.reason = null;
    this.cancel();
  }

  /** Whether it may be tried now. If not, `retry` is called when it may: once, however often this is asked. */
  isDue(clock: Clock, retry: () => void): boolean {
    const waitMs = this.#due - clock.monotonic();
    if (waitMs <= 0) return true;
    if (this.#waiting) return false;
    const waiting = new AbortController();
    this.#waiting = waiting;
    clock.sleep(waitMs, waiting.signal).then(
      () => {
        this.#waiting = null;
        retry();
      },
      () => {}, // cancelled
    );
    return false;
  }

  /** Ends the waiting; `retry` will not be called. */
  cancel(): void {
    this.#waiting?.abort();
    this.#waiting = null;
  }
}
