/** What has a time by which it must be over. */
export interface Expiring {
  /** On the clock of `performance.now()`, ms. */
  readonly deadline: number;
  /** The deadline has passed; it has been taken out. */
  expire(): void;
}

/** setTimeout takes at most 2^31-1 ms and fires at once beyond. */
const maxDelayMs = 2 ** 31 - 1;

/**
 * The deadlines of all calls under one timer, because nearly all calls end long before theirs: adding and deleting
 * write into a set. The timer is armed for the earliest deadline there was; when it rings, it looks who is due and
 * goes by the earliest of those that are left, which are young.
 */
export class Deadlines {
  readonly #all = new Set<Expiring>();
  #timer: NodeJS.Timeout | null = null;
  #ringsAt = Number.POSITIVE_INFINITY;

  get size(): number {
    return this.#all.size;
  }

  add(one: Expiring): void {
    this.#all.add(one);
    if (one.deadline < this.#ringsAt) this.#arm(one.deadline);
  }

  delete(one: Expiring): void {
    this.#all.delete(one);
  }

  #arm(at: number): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#ringsAt = at;
    const delayMs = Math.min(Math.max(1, Math.ceil(at - performance.now())), maxDelayMs);
    this.#timer = setTimeout(() => this.#ring(), delayMs);
    // the sockets of a call keep the process alive, not its deadline
    this.#timer.unref();
  }

  #ring(): void {
    this.#timer = null;
    this.#ringsAt = Number.POSITIVE_INFINITY;
    const now = performance.now();
    let next = Number.POSITIVE_INFINITY;
    for (const one of this.#all)
      if (one.deadline <= now) {
        this.#all.delete(one);
        one.expire();
      } else if (one.deadline < next) next = one.deadline;
    if (next < this.#ringsAt) this.#arm(next);
  }
}
