/** One line of the result: `value` is ours, `peers` are the others, measured in the same run. */
export interface Measurement {
  name: string;
  unit: string;
  value: number;
  peers: Record<string, number>;
}

/** A bench: measures and says what it found. Cleans up after itself, also when it fails. */
export type Bench = () => Promise<Measurement[]>;

export function quantile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
}

/** Milliseconds that `work` takes. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/** p50 and p90 of several series under the names of their owners; the first one is ours. */
export function summary(name: string, series: Record<string, readonly number[]>): Measurement[] {
  return [0.5, 0.9].map((q) => {
    const [[, ours], ...peers] = Object.entries(series).map(
      ([who, samples]) => [who, +quantile(samples, q).toFixed(1)] as const,
    ) as [[string, number], ...[string, number][]];
    return { name: `${name}, p${q * 100}`, unit: "ms", value: ours, peers: Object.fromEntries(peers) };
  });
}
