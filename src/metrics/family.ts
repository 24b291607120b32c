import type { Registry } from "prom-client";

/** One line of the exposition: a number under labels. `name` for the parts of a histogram, else the family's. */
export interface Sample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  readonly metricName?: string;
}

/**
 * A metric whose numbers live elsewhere and are read when somebody scrapes: nothing is kept twice, what is gone is
 * gone from the exposition too, and the data path only adds to plain counters.
 */
export function family(
  registry: Registry,
  metric: { name: string; type: "counter" | "gauge" | "histogram"; help: string },
  read: () => readonly Sample[] | Promise<readonly Sample[]>,
): void {
  // what Registry asks of a metric; its types name only the classes that prom-client brings
  const derived = { ...metric, get: async () => ({ ...metric, aggregator: "sum", values: await read() }), reset() {} };
  registry.registerMetric(derived as unknown as Parameters<Registry["registerMetric"]>[0]);
}

/** Durations by bucket, not cumulative: one number per bound and one for what was longer. */
export interface Durations {
  readonly count: number;
  /** Seconds. */
  readonly sum: number;
  readonly buckets: readonly number[];
}

/** The lines of one histogram: cumulative, as Prometheus has them. */
export function histogramSamples(
  name: string,
  labels: Readonly<Record<string, string | number>>,
  bounds: readonly number[],
  { count, sum, buckets }: Durations,
): Sample[] {
  let below = 0;
  const lines: Sample[] = bounds.map((le, i) => {
    below += buckets[i]!;
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: below };
  });
  lines.push(
    { metricName: `${name}_bucket`, labels: { ...labels, le: "+Inf" }, value: count },
    { metricName: `${name}_sum`, labels, value: sum },
    { metricName: `${name}_count`, labels, value: count },
  );
  return lines;
}
