import { setImmediate as turn } from "node:timers/promises";
import type { Clock } from "../../src/base/clock.ts";

/** 2026-01-01T00:00:00Z, where the clocks of this file begin. */
const epoch = 1_767_225_600_000;

/** A clock whose sleepers wake at once, while time passes by what they slept: a minute of polling takes a moment. */
export function hurriedClock(): Clock {
  let passed = 0;
  return {
    now: () => epoch + passed,
    monotonic: () => passed,
    async sleep(ms, signal) {
      signal?.throwIfAborted();
      await turn();
      passed += ms;
      signal?.throwIfAborted();
    },
  };
}

/** The system's clock, which can also leap ahead; who sleeps does so for real. */
export class LeapingClock implements Clock {
  #leapt = 0;
  readonly #real: Clock;
  constructor(real: Clock) {
    this.#real = real;
  }
  now(): number {
    return this.#real.now() + this.#leapt;
  }
  monotonic(): number {
    return this.#real.monotonic() + this.#leapt;
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return this.#real.sleep(ms, signal);
  }
  leap(ms: number): void {
    this.#leapt += ms;
  }
}

/** A clock that runs `times` as fast as the system's; who sleeps does so for real, that much shorter. */
export function fastClock(real: Clock, times: number): Clock {
  return {
    now: () => real.now(),
    monotonic: () => real.monotonic() * times,
    sleep: (ms, signal) => real.sleep(ms / times, signal),
  };
}

/** A clock that stands until it is set; nobody can sleep by it. */
export class SetClock implements Clock {
  #now: number;
  #passed = 0;
  constructor(iso: string) {
    this.#now = Date.parse(iso);
  }
  now(): number {
    return this.#now;
  }
  monotonic(): number {
    return this.#passed;
  }
  async sleep(): Promise<void> {
    throw new Error("nobody can sleep by this clock");
  }
  /** Time passes. */
  pass(ms: number): void {
    this.#now += ms;
    this.#passed += ms;
  }
  /** Somebody sets the clock. */
  set(iso: string): void {
    this.#now = Date.parse(iso);
  }
}
