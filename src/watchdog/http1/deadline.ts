/**
 * A deadline that moves with every request but hardly ever passes. Moving it writes a number; the timer behind it is
 * armed at most once per period and looks, when it rings, whether the deadline is still the one it was armed for.
 */
export class Deadline {
  readonly #fire: () => void;
  #at = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | null = null;
  #ringsAt = 0;

  /** `fire` is called once per deadline that passes. */
  constructor(fire: () => void) {
    this.#fire = fire;
  }

  /** Sets it `ms` from now; 0 or less: none. */
  set(ms: number): void {
    if (ms <= 0) {
      this.clear();
      return;
    }
    this.#at = performance.now() + ms;
    if (this.#timer && this.#ringsAt <= this.#at) return;
    if (this.#timer) clearTimeout(this.#timer);
    this.#arm(ms);
  }

  /** None any more; the timer may ring once in vain. */
  clear(): void {
    this.#at = Number.POSITIVE_INFINITY;
  }

  get passed(): boolean {
    return performance.now() >= this.#at;
  }

  /** Gives the timer back, for the end of the owner. */
  stop(): void {
    this.clear();
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #arm(ms: number): void {
    this.#ringsAt = performance.now() + ms;
    // setTimeout takes at most 2^31-1 ms (24.8 days) and fires at once beyond.
    this.#timer = setTimeout(() => this.#ring(), Math.min(Math.ceil(ms), 2 ** 31 - 1));
  }

  #ring(): void {
    this.#timer = null;
    const left = this.#at - performance.now();
    if (left === Number.POSITIVE_INFINITY) return;
    if (left > 0.5) {
      this.#arm(left);
      return;
    }
    this.clear();
    this.#fire();
  }
}
