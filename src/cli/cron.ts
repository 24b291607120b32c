import { setTimeout as delay } from "node:timers/promises";
import { parsed, type Reply } from "./answers.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import type { Gateway, RequestOptions } from "./gateway.ts";
import { askNapd, type NapdApi } from "./napd-only.ts";

/** A run of a function by the clock; docs/reference.md, Cron. */
export interface CronRun {
  callId: string;
  trigger: "schedule" | "missed" | "manual";
  result: "running" | "ok" | "failed" | "skipped" | "missed";
  status: number | null;
  error: string | null;
  scheduledAt: string | null;
  startedAt: string | null;
  /** Seconds. */
  duration: number | null;
}

/** A function with its schedules, of `/system/cron`. */
export interface CronFunction {
  name: string;
  namespace: string;
  overlap: string;
  missed: string;
  async: boolean;
  errors: string[];
  schedules: { expression: string; timeZone: string | null; next: string | null }[];
  /** Latest first. */
  runs: CronRun[];
}

const api: NapdApi = {
  path: "/system/cron",
  without: "schedules of other gateways are a matter of their cron-connector",
};

export const askCron = (
  gateway: Gateway,
  request: readonly [method: string, rest?: string],
  statuses: readonly number[],
  options: RequestOptions & { absent?: string } = {},
): Promise<Reply> => askNapd(gateway, api, request, statuses, options);

export async function listCron(gateway: Gateway, namespace: string | undefined): Promise<CronFunction[]> {
  const reply = await askCron(gateway, ["GET"], [200], { query: { namespace: namespace || undefined } });
  return parsed(gateway.url + api.path, reply, "objects", ["schedules", "errors", "runs"]);
}

export async function findCron(gateway: Gateway, name: string, namespace: string | undefined): Promise<CronFunction> {
  const found = (await listCron(gateway, namespace)).find((f) => f.name === name);
  if (!found) throw new Failure(`function ${name} has no schedule; nap cron list shows those that have`);
  return found;
}

/** The run as it is when it has ended. */
export async function waitForRun(
  context: Context,
  gateway: Gateway,
  { name, namespace }: { name: string; namespace: string | undefined },
  { callId }: CronRun,
  waitMs: number,
): Promise<CronRun> {
  const end = performance.now() + waitMs;
  for (let pause = 20; ; pause = Math.min(pause * 1.5, 1000)) {
    const run = (await findCron(gateway, name, namespace)).runs.find((r) => r.callId === callId);
    if (!run) throw new Failure(`run ${callId} is not among the last ones of ${name} any more`);
    if (run.result !== "running") return run;
    if (performance.now() > end)
      throw new Failure(`${name} still runs after ${waitMs / 1000} s (--wait-timeout); nap cron history ${name}`);
    await delay(pause, undefined, { signal: context.signal });
  }
}

export const nextOf = ({ schedules }: CronFunction): string | null =>
  schedules
    .map((s) => s.next)
    .filter((next) => next !== null)
    .sort()[0] ?? null;

/** What came of a run, in a word or two. */
export const outcomeOf = ({ result, status, error }: CronRun): string =>
  result === "failed" ? `failed: ${error ?? `status ${status}`}` : result;
