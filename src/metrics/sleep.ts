import type { Registry } from "prom-client";
import { type Durations, family, histogramSamples } from "./family.ts";

/** How functions fall asleep and wake up: read at every scrape. */
export interface SleepSources {
  sleep: {
    readonly freezes: number;
    readonly freezeFailures: number;
    readonly thaws: number;
    /** Of calls that found nobody awake, by what had to be waited for: a thaw (frozen) or a start (stopped). */
    readonly waits: Readonly<Record<"frozen" | "stopped", Durations>>;
  };
  /** Upper bounds of the buckets in `sleep.waits`, seconds. */
  waitBounds: readonly number[];
}

export function sleepMetrics(registry: Registry, { sleep, waitBounds }: SleepSources): void {
  const counter = (name: string, help: string, value: () => number) =>
    family(registry, { name, type: "counter", help }, () => [{ labels: {}, value: value() }]);
  counter("napd_freezes_total", "Replicas that were frozen.", () => sleep.freezes);
  counter("napd_freeze_failures_total", "Replicas that could not be frozen.", () => sleep.freezeFailures);
  counter("napd_thaws_total", "Replicas that were thawed.", () => sleep.thaws);
  const waited = { name: "napd_wake_wait_seconds", type: "histogram" } as const;
  family(registry, { ...waited, help: "How long calls waited for a function that slept, by how it slept." }, () =>
    Object.entries(sleep.waits).flatMap(([from, durations]) =>
      histogramSamples(waited.name, { from }, waitBounds, durations),
    ),
  );
}
