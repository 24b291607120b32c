import { AppError } from "../base/errors.ts";
import type { Depth } from "./store.ts";

/**
 * How many messages are queued or run, of all functions and of each: a function whose calls pile up must not take the
 * places of the others. Requests on their way to become messages have theirs already.
 */
export class Places {
  readonly #max: number;
  readonly #taken = new Map<string, number>();
  #total = 0;

  /** `max`: of all functions; `depths`: what is there. */
  constructor(max: number, depths: readonly Depth[]) {
    this.#max = max;
    this.recount(depths);
  }

  /** Begins anew with what is there: where others put and take too, what was counted here is only about right. */
  recount(depths: readonly Depth[]): void {
    this.#taken.clear();
    this.#total = 0;
    for (const { fn, queued, running } of depths) this.add(fn, queued + running);
  }

  /** A place for one more; fails with QUEUE_FULL or QUEUE_FUNCTION_FULL. Whoever has one makes use of it, or frees it. */
  reserve(fn: string, maxOfFunction: number): void {
    if (this.#total >= this.#max) throw new AppError("QUEUE_FULL", [this.#max]);
    const taken = this.#taken.get(fn) ?? 0;
    if (taken >= maxOfFunction) throw new AppError("QUEUE_FUNCTION_FULL", [fn, maxOfFunction]);
    this.add(fn);
  }

  /** For what is there anyway: nobody is asked. */
  add(fn: string, count = 1): void {
    const left = (this.#taken.get(fn) ?? 0) + count;
    this.#total += count;
    if (left > 0) this.#taken.set(fn, left);
    else this.#taken.delete(fn);
  }

  free(fn: string): void {
    this.add(fn, -1);
  }
}
