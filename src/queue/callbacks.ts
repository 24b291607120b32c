import type { Clock } from "../base/clock.ts";
import { AppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Deliver } from "../invoke/internal.ts";
import type { MessageBodies } from "./bodies.ts";
import { makeCall } from "./call.ts";
import type { Guard } from "./guard.ts";
import { postCallback } from "./post.ts";
import { decide, type Result, type RetryPolicy } from "./retry.ts";
import type { Message, Outcome, StoredBody } from "./store.ts";

export interface CallbackOptions {
  readonly deliver: Deliver;
  readonly bodies: MessageBodies;
  readonly guard: Guard;
  readonly maxBodyBytes: number;
  readonly defaultNamespace: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** How callbacks are tried again; ours, the contract has none. */
const callbackRetries: RetryPolicy = {
  attempts: 8,
  minWaitMs: 1000,
  maxWaitMs: 120_000,
  backoff: "equal",
  codes: new Set([408, 425, 429, 500, 502, 503, 504]),
};

/** A URL that a callback may go to, undefined for any other text. */
export function parseCallback(text: string): URL | undefined {
  const url = URL.parse(text);
  return url && (url.protocol === "http:" || url.protocol === "https:") ? url : undefined;
}

/** Whether the host is the gateway's own name inside functions (contracts/api.md §4.4). */
export function isGateway(url: URL): boolean {
  return url.protocol === "http:" && (url.hostname === "gateway" || url.hostname === "gateway.openfaas");
}

/** Makes an attempt to tell somebody what came of a call. */
export async function attemptCallback(
  options: CallbackOptions,
  message: Message,
  signal: AbortSignal,
): Promise<Outcome> {
  const { clock, log } = options;
  const { callId, fn, attempts } = message;
  let result: Result & { readonly error?: string };
  try {
    const url = parseCallback(message.target)!;
    const told = isGateway(url)
      ? await toGateway(options, message, url, signal)
      : await post(options, message, url, signal);
    if ("to" in told) return told;
    result = told;
  } catch (e) {
    const isRefused = e instanceof AppError && e.code === "CALLBACK_REFUSED";
    result = { status: isRefused ? 403 : 503, isInternal: false, retryAfter: undefined, error: messageOf(e) };
  }
  const { status } = result;
  if (status < 300) return { to: "done" };
  const error = result.error ?? `the callback was answered with ${status}`;
  const decision = decide(result, attempts, callbackRetries, clock.now(), Math.random());
  if (typeof decision === "object") return { to: "queued", due: clock.now() + decision.waitMs, status, error };
  log.warn({ callId, fn, attempts, err: error }, "a callback was given up");
  return { to: "dead", status, error };
}

function post({ guard, bodies }: CallbackOptions, message: Message, url: URL, signal: AbortSignal): Promise<Result> {
  const headers = [...message.headers, "Content-Length", String(message.body.bytes)];
  return postCallback(guard, url, headers, bodies.read(message.body), signal);
}

/** A callback that names the gateway calls a function of ours, at once or through the queue. */
async function toGateway(
  options: CallbackOptions,
  message: Message,
  url: URL,
  signal: AbortSignal,
): Promise<Result | Outcome> {
  const [, kind, name, rest = ""] = /^\/(function|async-function)\/([^/]+)(.*)$/.exec(url.pathname) ?? [];
  if (!kind || !name) throw new AppError("CALLBACK_FAILED", [url.host, "only functions can be called there"]);
  const fn = name.includes(".") ? name : `${name}.${options.defaultNamespace}`;
  const call = { ...message, lane: "call" as const, fn, target: `${rest || "/"}${url.search}` };
  if (kind === "function") return makeCall(options, call, callbackRetries, null, signal);
  // it takes this one's place, with its body: nothing can happen in between
  return { to: "done", next: { ...call, body: await copied(options, message), created: options.clock.now() } };
}

/** A body of its own for a message that outlives the one that has it. */
async function copied({ bodies, maxBodyBytes }: CallbackOptions, { body }: Message): Promise<StoredBody> {
  return body.file === null ? body : (await bodies.keep(bodies.read(body), maxBodyBytes))!;
}
