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

/** What `work` comes to, or undefined when it takes longer than `ms`; the work itself goes on. Leaves no timer behind. */
export async function within<T>(work: Promise<T>, ms: number, clock: Clock): Promise<T | undefined> {
  const done = new AbortController();
  const late = clock.sleep(ms, done.signal).then(
    () => undefined,
    () => undefined,
  );
  try {
    return await Promise.race([work, late]);
  } finally {
    done.abort();
  }
}
