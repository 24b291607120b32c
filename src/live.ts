import type { Config } from "./config.ts";
import { type Setting, settings } from "./settings.ts";

/**
 * The settings that a reload changes, in the groups in which parts of napd hold them: a part is given a group, reads it
 * whenever it needs it, and so has the new values from `update` on. What is marked as live in the table of settings is
 * read here, and nothing else.
 */
export function liveSettings(config: Config) {
  const { gateway, calls, queue, images, functions, scale, logs } = config;
  return {
    level: config.log.level,
    registries: config.registries,
    tls: { certificate: config.tls.certificate, key: config.tls.key },
    gateway: {
      headersTimeoutMs: gateway.headers_timeout,
      bodyTimeoutMs: gateway.body_timeout,
      sendTimeoutMs: gateway.send_timeout,
      keepAliveMs: gateway.keep_alive,
      maxConnections: gateway.max_connections,
      maxHeaders: gateway.max_headers,
    },
    /** What holds for functions that say nothing else. */
    defaults: {
      timeoutMs: gateway.upstream_timeout,
      pullPolicy: images.pull_policy,
      scale: {
        sleeps: scale.zero === "on",
        idleMs: scale.idle,
        stopAfterMs: scale.stop_after,
        auto: scale.auto === "on",
      },
      limits: { maxInFlight: calls.max_inflight, queue: calls.queue, maxBodyBytes: gateway.max_body },
      async: {
        concurrency: queue.concurrency,
        maxPending: queue.max_pending_function,
        attempts: queue.attempts,
        minWaitMs: queue.min_wait,
        maxWaitMs: queue.max_wait,
        backoff: queue.backoff,
        codes: new Set(queue.retry_codes.map(Number)),
        keepResultsMs: queue.keep_results,
      },
    },
    rollout: { readyTimeoutMs: functions.ready_timeout, graceMs: functions.grace },
    deploys: { deployWaitMs: functions.deploy_wait },
    host: { maxUploadBytes: images.max_upload, pullPolicy: images.pull_policy, pidsLimit: functions.pids_limit },
    keeper: { gcHigh: images.gc_high, gcLow: images.gc_low, gcMinAgeMs: images.gc_min_age },
    logs: { maxFileBytes: logs.max_file, maxTotalBytes: logs.max_total, minFreeBytes: logs.min_free },
  };
}

export type Live = ReturnType<typeof liveSettings>;

/** Gives every group its new values, in place. */
export function update(live: Live, config: Config): void {
  const next = liveSettings(config) as Record<string, unknown>;
  for (const [name, group] of Object.entries(live as Record<string, unknown>))
    if (typeof group === "object" && !Array.isArray(group)) Object.assign(group as object, next[name]);
    else (live as Record<string, unknown>)[name] = next[name];
}

export interface Reload {
  /** The running settings with what changes live as the new ones have it. */
  readonly config: Config;
  /** Names of the settings that change, and of those that would take a restart. */
  readonly changed: readonly string[];
  readonly restart: readonly string[];
}

/** What becomes of the settings that napd runs with when the new ones are taken up without a restart. */
export function planReload(running: Config, next: Config): Reload {
  const changed: string[] = [];
  const restart: string[] = [];
  const isSame = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);
  const merged: Record<string, unknown> = { ...running };
  for (const [section, entries] of Object.entries(settings)) {
    const old = running[section as keyof Config] as Record<string, unknown>;
    const values = { ...old };
    for (const [key, { isLive, write }] of Object.entries(entries) as [string, Setting<unknown>][]) {
      const value = (next[section as keyof Config] as Record<string, unknown>)[key];
      if (write(old[key]) === write(value)) continue;
      (isLive ? changed : restart).push(`${section}.${key}`);
      if (isLive) values[key] = value;
    }
    merged[section] = values;
  }
  if (!isSame(running.registries, next.registries)) {
    changed.push("registries");
    merged.registries = next.registries;
  }
  if (!isSame(running.routes, next.routes)) restart.push("routes");
  return { config: merged as Config, changed, restart };
}
