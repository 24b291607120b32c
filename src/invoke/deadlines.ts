/** What has a time by which it must be over. */
export interface Expiring {
  /** On the clock of `performance.now()`, ms. */
  readonly deadline: number;
  /** Where it is in the list; -1 when it is not. The list's own. */
  slot: number;
  /** The deadline has passed; it has been taken out. */
  expire(): void;
}

/** setTimeout takes at most 2^31-1 ms and fires at once beyond. */
const maxDelayMs = 2 ** 31 - 1;

/**
 * The deadlines of all calls under one timer, because nearly all calls end long before theirs. The timer is armed for
 * the earliest deadline there was; when it rings, it looks who is due and goes by the earliest of those that are left,
 * which are young.
 *
 * An array, not a Set: a Set that changes all the time is rehashed all the time, every discarded table refers to the
 * next one, and with the first of them in the old generation the garbage collector keeps them all, calls included,
 * until its next full run.
 */
export class Deadlines {
  readonly #all: Expiring[] = [];
  #timer: NodeJS.Timeout | null = null;
  #ringsAt = Number.POSITIVE_INFINITY;

  get size(): number {
    return this.#all.length;
  }

  add(one: Expiring): void {
    one.slot = this.#all.length;
    this.#all.push(one);
    if (one.deadline < this.#ringsAt) this.#arm(one.deadline);
  }

  delete(one: Expiring): void {
    const { slot } = one;
    if (slot < 0) return;
    one.slot = -1;
    const last = this.#all.pop()!;
    if (last === one) return;
    this.#all[slot] = last;
    last.slot = slot;
  }

  #arm(at: number): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#ringsAt = at;
    const delayMs = Math.min(Math.max(1, Math.ceil(at - performance.now())), maxDelayMs);
    // what keeps the process alive are the sockets of a call, not its deadline
    this.#timer = setTimeout(() => this.#ring(), delayMs).unref();
  }

  #ring(): void {
    this.#timer = null;
    this.#ringsAt = Number.POSITIVE_INFINITY;
    const now = performance.now();
    const due = this.#all.filter((one) => one.deadline <= now).sort((a, b) => a.deadline - b.deadline);
    for (const one of due) this.delete(one);
    for (const one of due) one.expire();
    let next = Number.POSITIVE_INFINITY;
    for (const one of this.#all) if (one.deadline < next) next = one.deadline;
    if (next < this.#ringsAt) this.#arm(next);
  }
}
