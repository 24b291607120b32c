import { setTimeout as delay } from "node:timers/promises";

/** Time, as everything in napd sees it; tests give their own. */
export interface Clock {
  /** Milliseconds since the Unix epoch. For people and for records, never for measuring. */
  now(): number;
  /** Milliseconds from an arbitrary start; never goes back. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    signal?.throwIfAborted();
    try {
      await delay(ms, undefined, signal ? { signal } : undefined);
    } catch (e) {
      throw signal?.aborted ? signal.reason : e;
    }
  },
};
