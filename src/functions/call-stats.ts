/** Upper bounds of the duration histogram, in seconds: Prometheus' defaults (contracts/api.md §2.10). */
export const durationBounds: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Calls that ended with one status code. */
export interface CodeStats {
  count: number;
  /** Of all durations, in seconds. */
  sum: number;
  /** Calls by duration, not cumulative: one number per bound and one for what was longer. */
  readonly buckets: number[];
}

/** Codes that are told apart; a function that answers with more has the rest counted by their class: 200, 300, … */
const maxCodes = 50;

/** The calls of one function since napd started. Counting is a few additions: it happens on the data path. */
export class CallStats {
  started = 0;
  ended = 0;
  readonly byCode = new Map<number, CodeStats>();

  get inFlight(): number {
    return this.started - this.ended;
  }

  begin(): void {
    this.started++;
  }

  end(code: number, seconds: number): void {
    this.ended++;
    const stats = this.byCode.get(code) ?? this.#first(this.byCode.size < maxCodes ? code : code - (code % 100));
    stats.count++;
    stats.sum += seconds;
    let bucket = 0;
    while (bucket < durationBounds.length && seconds > durationBounds[bucket]!) bucket++;
    stats.buckets[bucket]!++;
  }

  #first(code: number): CodeStats {
    const known = this.byCode.get(code);
    if (known) return known;
    const stats = { count: 0, sum: 0, buckets: durationBounds.map(() => 0).concat(0) };
    this.byCode.set(code, stats);
    return stats;
  }
}
