/** Upper bounds of the duration histogram, in seconds: Prometheus' defaults (contracts/api.md §2.10). */
export const durationBounds: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Codes that are told apart; a function that answers with more has the rest counted by their class: 200, 300, … */
const maxCodes = 50;

/** Durations in buckets. Counting is a few additions: it happens on the data path. */
export class DurationCounts {
  count = 0;
  /** Of all, in seconds. */
  sum = 0;
  /** Not cumulative: one number per bound and one for what was longer. */
  readonly buckets: number[];
  readonly #bounds: readonly number[];

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.buckets = bounds.map(() => 0).concat(0);
  }

  add(seconds: number): void {
    this.count++;
    this.sum += seconds;
    let bucket = 0;
    while (bucket < this.#bounds.length && seconds > this.#bounds[bucket]!) bucket++;
    this.buckets[bucket]!++;
  }
}

/** The calls of one function since napd started. */
export class CallStats {
  started = 0;
  ended = 0;
  readonly byCode = new Map<number, DurationCounts>();

  get inFlight(): number {
    return this.started - this.ended;
  }

  begin(): void {
    this.started++;
  }

  end(code: number, seconds: number): void {
    this.ended++;
    (this.byCode.get(code) ?? this.#first(this.byCode.size < maxCodes ? code : code - (code % 100))).add(seconds);
  }

  #first(code: number): DurationCounts {
    const known = this.byCode.get(code);
    if (known) return known;
    const counts = new DurationCounts(durationBounds);
    this.byCode.set(code, counts);
    return counts;
  }
}
