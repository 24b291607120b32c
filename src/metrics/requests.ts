import { Counter, Histogram, type Registry } from "prom-client";

/** Counts one request of the API: its route's pattern (never the raw path), method, status and seconds. */
export type CountRequest = (method: string, path: string, status: number, seconds: number) => void;

/**
 * Requests of the API (not calls of functions), under the gateway's names and under the provider's, which differ in
 * their labels: contracts/api.md §2.10.
 */
export function requestMetrics(registry: Registry): CountRequest {
  const registers = [registry];
  const gatewayLabels = ["method", "path", "status"] as const;
  const providerLabels = ["code", "method", "path"] as const;
  const total = new Counter({
    ...{ name: "http_requests_total", help: "Requests of the API.", labelNames: gatewayLabels },
    registers,
  });
  const seconds = new Histogram({
    ...{ name: "http_request_duration_seconds", help: "How long requests of the API took.", labelNames: gatewayLabels },
    registers,
  });
  const providerTotal = new Counter({
    ...{ name: "provider_http_requests_total", help: "As http_requests_total.", labelNames: providerLabels },
    registers,
  });
  const providerSeconds = new Histogram({
    name: "provider_http_request_duration_seconds",
    help: "As http_request_duration_seconds.",
    labelNames: providerLabels,
    registers,
  });
  return (method, path, status, duration) => {
    total.inc({ method, path, status });
    seconds.observe({ method, path, status }, duration);
    providerTotal.inc({ code: status, method, path });
    providerSeconds.observe({ code: status, method, path }, duration);
  };
}
