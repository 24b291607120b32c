import type { Readable } from "node:stream";
import { AppError } from "../base/errors.ts";
import { keyOf, splitAddress } from "../base/names.ts";
import type { AddResource } from "./api.ts";
import { queryOf } from "./request.ts";

/** A message of the queue as its store tells of it. */
interface QueuedCall {
  readonly callId: string;
  readonly lane: "call" | "callback";
  readonly fn: string;
  readonly target: string;
  readonly state: "queued" | "running" | "dead";
  readonly attempts: number;
  readonly bytes: number;
  readonly callback: string | null;
  readonly created: number;
  readonly due: number;
  readonly status: number | null;
  readonly error: string | null;
}

/** What the API needs of the queue. */
export interface QueueAdmin {
  list(filter: {
    fn?: string;
    namespace?: string;
    state?: QueuedCall["state"];
    limit: number;
  }): Promise<readonly QueuedCall[]>;
  get(callId: string): Promise<readonly QueuedCall[]>;
  cancel(callId: string): Promise<void>;
  retry(callId: string): Promise<void>;
  /** While the call is queued or runs, what `get` says. Headers are names and values in turn. */
  result(
    callId: string,
  ): Promise<{ headers: readonly string[]; bytes: number; body: Readable } | readonly QueuedCall[]>;
}

const states = ["queued", "running", "dead"] as const;
const defaultLimit = 100;
const maxLimit = 1000;

/** To see and steer asynchronous calls: ours, OpenFaaS has none of this. */
export function queueRoutes(
  add: AddResource,
  { queue, defaultNamespace }: { queue: QueueAdmin; defaultNamespace: string },
): void {
  add("/system/queue", {
    GET: async (request) => {
      const fn = queryOf(request, "function");
      const namespace = queryOf(request, "namespace") || undefined;
      const state = queryOf(request, "state") || undefined;
      if (state !== undefined && !isState(state))
        throw new AppError("BAD_REQUEST", [`query parameter state=${state} must be one of ${states.join(", ")}`]);
      const limit = queryOf(request, "limit") ?? String(defaultLimit);
      if (!/^\d{1,6}$/.test(limit) || +limit < 1 || +limit > maxLimit)
        throw new AppError("BAD_REQUEST", [
          `query parameter limit=${limit} must be a whole number from 1 to ${maxLimit}`,
        ]);
      const found = await queue.list({
        ...(fn && { fn: keyOf(splitAddress(fn, namespace ?? defaultNamespace)) }),
        ...(namespace && { namespace }),
        ...(state && { state }),
        limit: Number(limit),
      });
      return found.map(toJson);
    },
  });

  add("/system/queue/:callId", {
    GET: async (request) => (await queue.get(callIdOf(request.params))).map(toJson),
    DELETE: async (request, reply) => {
      await queue.cancel(callIdOf(request.params));
      return reply.code(202).send();
    },
  });

  add("/system/queue/:callId/result", {
    GET: async (request, reply) => {
      const result = await queue.result(callIdOf(request.params));
      if (!("body" in result)) {
        reply.code(202).header("Retry-After", "1");
        return result.map(toJson);
      }
      for (const [name, values] of grouped(result.headers)) reply.header(name, values.length > 1 ? values : values[0]);
      return reply.header("Content-Length", result.bytes).send(result.body);
    },
  });

  add("/system/queue/:callId/retry", {
    POST: async (request, reply) => {
      await queue.retry(callIdOf(request.params));
      return reply.code(202).send();
    },
  });
}

function isState(text: string): text is QueuedCall["state"] {
  return states.some((state) => state === text);
}

function callIdOf(params: unknown): string {
  return (params as { callId: string }).callId;
}

/** Names and values in turn, as values by name. */
function grouped(headers: readonly string[]): Map<string, string[]> {
  const byName = new Map<string, string[]>();
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    byName.set(name, [...(byName.get(name) ?? []), headers[i + 1]!]);
  }
  return byName;
}

function toJson({ fn, lane, target, created, due, state, attempts, bytes, callId, ...rest }: QueuedCall) {
  const { callback, status, error } = rest;
  const { name, namespace } = splitAddress(fn, "");
  return {
    ...{ callId, function: name, namespace, kind: lane, state, attempts, bytes },
    ...(lane === "call" ? { target } : { url: target }),
    createdAt: new Date(created).toISOString(),
    ...(state === "queued" && { dueAt: new Date(due).toISOString() }),
    ...(callback !== null && { callbackUrl: callback }),
    ...(status !== null && { lastStatus: status }),
    ...(error !== null && { lastError: error }),
  };
}
