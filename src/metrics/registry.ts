import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { type FunctionSources, functionMetrics } from "./functions.ts";
import { type QueueSources, queueMetrics } from "./queue.ts";
import { type CountRequest, requestMetrics } from "./requests.ts";
import { type SleepSources, sleepMetrics } from "./sleep.ts";

export interface Metrics {
  readonly registry: Registry;
  readonly countRequest: CountRequest;
}

/** All that napd exposes: functions, requests of the API, and its own process (`process_*`, `nodejs_*`). */
export function openMetrics(sources: FunctionSources & SleepSources & QueueSources & { version: string }): Metrics {
  const registry = new Registry();
  new Gauge({
    name: "napd_info",
    help: "1, with napd's version as label.",
    labelNames: ["version"],
    registers: [registry],
  }).set({ version: sources.version }, 1);
  functionMetrics(registry, sources);
  sleepMetrics(registry, sources);
  queueMetrics(registry, sources);
  const countRequest = requestMetrics(registry);
  // a coarse look at the event loop: the default wakes the process 100 times a second
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 200 });
  return { registry, countRequest };
}
