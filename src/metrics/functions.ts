import type { Registry } from "prom-client";
import { type Durations, family, histogramSamples, type Sample } from "./family.ts";

/** What is exposed of one function; read at every scrape. */
export interface FunctionSample {
  /** NAME.NAMESPACE, also for the default namespace: contracts/api.md §2.10. */
  readonly key: string;
  readonly name: string;
  readonly namespace: string;
  readonly calls: {
    readonly started: number;
    readonly inFlight: number;
    /** By status code. */
    readonly byCode: ReadonlyMap<number, Durations>;
  };
  /** Replicas asked for. */
  readonly desired: number;
  /** Replicas that answer now or after a wake. */
  readonly available: number;
  readonly minReplicas: number;
  readonly target: { readonly type: string; readonly load: number };
  /** Replicas by state. */
  readonly states: Readonly<Record<string, number>>;
}

/** What one function uses, over all of its replicas. */
export interface UsageSample {
  readonly name: string;
  readonly namespace: string;
  readonly cpuSeconds: number;
  readonly memoryBytes: number;
}

export interface FunctionSources {
  functions: () => readonly FunctionSample[];
  usage: () => Promise<readonly UsageSample[]>;
  /** Upper bounds of the buckets in `calls.byCode`, seconds. */
  durationBounds: readonly number[];
}

/** The families that OpenFaaS' dashboards, alerts and autoscalers read, with its names and labels: contracts/api.md §2.10. */
export function functionMetrics(registry: Registry, { functions, usage, durationBounds }: FunctionSources): void {
  const perFunction = (type: "counter" | "gauge", name: string, help: string, value: (f: FunctionSample) => number) =>
    family(registry, { name, type, help }, () =>
      functions().map((f) => ({ labels: { function_name: f.key }, value: value(f) })),
    );
  const perCode = (lines: (f: FunctionSample, code: number, durations: Durations) => Sample[]) => () =>
    functions().flatMap((f) => [...f.calls.byCode].flatMap(([code, durations]) => lines(f, code, durations)));

  family(
    registry,
    { name: "gateway_function_invocation_total", type: "counter", help: "Calls that ended, by status code." },
    perCode((f, code, { count }) => [{ labels: { function_name: f.key, code }, value: count }]),
  );
  family(
    registry,
    { name: "gateway_functions_seconds", type: "histogram", help: "How long calls took, wake-up included." },
    perCode((f, code, durations) =>
      histogramSamples("gateway_functions_seconds", { function_name: f.key, code }, durationBounds, durations),
    ),
  );
  perFunction("counter", "gateway_function_invocation_started", "Calls that came in.", (f) => f.calls.started);
  perFunction("gauge", "gateway_function_invocation_inflight", "Calls under way.", (f) => f.calls.inFlight);
  perFunction("gauge", "gateway_service_count", "Replicas asked for.", (f) => f.desired);
  perFunction("gauge", "gateway_service_ready_count", "Replicas that answer now or after a wake.", (f) => f.available);
  perFunction("gauge", "gateway_service_min", "Least number of replicas.", (f) => f.minReplicas);
  family(
    registry,
    { name: "gateway_service_target_load", type: "gauge", help: "Load of one replica that scaling aims at." },
    () =>
      functions().map((f) => ({ labels: { function_name: f.key, scaling_type: f.target.type }, value: f.target.load })),
  );
  family(registry, { name: "napd_replicas", type: "gauge", help: "Replicas by state." }, () =>
    functions().flatMap((f) =>
      Object.entries(f.states).map(([state, value]) => ({ labels: { function_name: f.key, state }, value })),
    ),
  );
  const perUsage = (type: "counter" | "gauge", name: string, help: string, value: (u: UsageSample) => number) =>
    family(registry, { name, type, help }, async () =>
      (await usage()).map((u) => ({
        labels: { function_name: u.name, namespace: u.namespace },
        value: value(u),
      })),
    );
  perUsage("counter", "pod_cpu_usage_seconds_total", "CPU time of the replicas there are.", (u) => u.cpuSeconds);
  perUsage("gauge", "pod_memory_working_set_bytes", "Memory in use by the replicas there are.", (u) => u.memoryBytes);
}
