import { setTimeout as delay } from "node:timers/promises";
import { notOurs, parsed, type Reply } from "./answers.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import type { Gateway, RequestOptions } from "./gateway.ts";
import { askNapd, type NapdApi } from "./napd-only.ts";
import { bodyAsJson, printJson } from "./output.ts";

/** An entry of `/system/queue`; docs/reference.md, Asynchronous calls. */
export interface QueueEntry {
  callId: string;
  function: string;
  namespace: string;
  kind: "call" | "callback";
  state: "queued" | "running" | "dead";
  attempts: number;
  bytes: number;
  target?: string;
  url?: string;
  createdAt: string;
  dueAt?: string;
  callbackUrl?: string;
  lastStatus?: number;
  lastError?: string;
}

const api: NapdApi = {
  path: "/system/queue",
  without: "what waits there cannot be seen or steered from here",
};

export const askQueue = (
  gateway: Gateway,
  request: readonly [method: string, rest?: string],
  statuses: readonly number[],
  options: RequestOptions = {},
): Promise<Reply> => askNapd(gateway, api, request, statuses, options);

/** What the queue has of a call: the call itself, callbacks of it, others of the same id. */
export async function getCall(gateway: Gateway, id: string): Promise<QueueEntry[]> {
  const rest = pathOf(id);
  const absent = `the queue has no call ${id}: it is done, or was never there; nap queue list shows what waits`;
  const reply = await askNapd(gateway, api, ["GET", rest], [200], { absent });
  return parsed(`${gateway.url}${api.path}${rest}`, reply, "objects");
}

export const pathOf = (id: string): string => `/${encodeURIComponent(id)}`;

/** What came of a call. */
export interface CallResult {
  readonly status: number;
  readonly seconds?: number;
  readonly body: Buffer;
}

/** The result of a call; while it waits or runs, what the queue has of it. Fails when there is no result to come. */
export async function findResult(gateway: Gateway, id: string): Promise<CallResult | QueueEntry[]> {
  const rest = `${pathOf(id)}/result`;
  const reply = await askNapd(gateway, api, ["GET", rest], [200, 202]);
  if (reply.status === 202) return parsed(`${gateway.url}${api.path}${rest}`, reply, "objects");
  const { headers, bytes: body } = reply;
  if (headers["x-function-status"] === undefined) throw notOurs(`${gateway.url}${api.path}${rest}`, reply);
  const seconds = Number(headers["x-duration-seconds"] ?? Number.NaN);
  return { status: Number(headers["x-function-status"]), body, ...(Number.isFinite(seconds) && { seconds }) };
}

/** The result of a call as soon as there is one; fails after `waitMs`. */
export async function waitForResult(
  context: Context,
  gateway: Gateway,
  id: string,
  waitMs: number,
): Promise<CallResult> {
  const end = performance.now() + waitMs;
  for (let pause = 20; ; pause = Math.min(pause * 1.5, 1000)) {
    const found = await findResult(gateway, id);
    if (!Array.isArray(found)) return found;
    if (performance.now() > end)
      throw new Failure(
        `call ${id} has no result after ${waitMs / 1000} s (--wait-timeout); nap queue describe ${id} says how it is`,
      );
    await delay(pause, undefined, { signal: context.signal });
  }
}

export const reasonOf = ({ lastError, lastStatus }: QueueEntry): string =>
  lastError ?? (lastStatus === undefined ? "" : `status ${lastStatus}`);

/** The body as it is; fails as `invoke` does when the function did. */
export function showResult(context: Context, id: string, result: CallResult, { json }: { json?: boolean }): void {
  const { status, seconds, body } = result;
  if (json) printJson(context, { callId: id, status, seconds, ...bodyAsJson(body) });
  else context.stdout.write(body);
  if (status < 200 || status > 299) throw new Failure(`call ${id} was answered ${status}`);
}
