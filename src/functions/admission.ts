import type { CallLimits } from "./call-limits.ts";

/** A call that waits for its turn. */
export interface Waiter {
  /** It is its turn; it is counted among those that run already. */
  admitted(): void;
}

/**
 * How many calls of one function run at a time: those beyond the limit wait in the order they came, up to a number.
 * The limits are asked for each time, because a deploy may change them.
 */
export class Admission {
  #running = 0;
  /** In order of arrival; a caller may leave from anywhere. */
  readonly #waiting = new Set<Waiter>();

  /** Calls that run, whoever limits them. */
  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** `running`: go on at once, and `leave` at the end. `waiting`: until `admitted`, or `withdraw`. */
  enter(waiter: Waiter, limits: CallLimits): "running" | "waiting" | "refused" {
    const { maxInFlight, queue } = limits;
    if (maxInFlight === 0 || this.#running < maxInFlight) {
      this.#running++;
      return "running";
    }
    if (this.#waiting.size >= queue) return "refused";
    this.#waiting.add(waiter);
    return "waiting";
  }

  /** One that ran has ended: whoever has waited longest goes on. */
  leave(limits: CallLimits): void {
    this.#running--;
    const { maxInFlight } = limits;
    // several at once when a deploy has raised the limit: until here nobody had left since
    while (this.#waiting.size > 0 && (maxInFlight === 0 || this.#running < maxInFlight)) {
      const [next] = this.#waiting;
      this.#waiting.delete(next!);
      this.#running++;
      next!.admitted();
    }
  }

  /** One that waited has left. */
  withdraw(waiter: Waiter): void {
    this.#waiting.delete(waiter);
  }
}
