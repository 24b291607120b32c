import type { IncomingMessage } from "node:http";
import type { Clock } from "../base/clock.ts";
import { AppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Deliver } from "../invoke/internal.ts";
import { type Bodies, emptyBody } from "./bodies.ts";
import { callbackRetries, isGateway, parseCallback, postCallback } from "./callback.ts";
import type { Guard } from "./guard.ts";
import { decide, type Result, type RetryPolicy } from "./retry.ts";
import type { Message, NewMessage, Outcome, StoredBody } from "./store.ts";

export interface DeliveryOptions {
  readonly deliver: Deliver;
  readonly bodies: Bodies;
  readonly guard: Guard;
  /** Largest answer that a callback tells. */
  readonly maxBodyBytes: number;
  readonly defaultNamespace: string;
  readonly retries: (fn: string) => RetryPolicy;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What a call came to; `answer` is null when there is none: the function was never reached, or cut it off. */
interface CallResult extends Result {
  readonly answer: { readonly headers: readonly string[]; readonly body: StoredBody } | null;
  readonly error?: string;
}

/** Makes an attempt at a message of either lane. */
export function openDelivery(options: DeliveryOptions): (message: Message, signal: AbortSignal) => Promise<Outcome> {
  return (message, signal) =>
    message.lane === "call" ? attemptCall(options, message, signal) : attemptCallback(options, message, signal);
}

async function attemptCall(options: DeliveryOptions, message: Message, signal: AbortSignal): Promise<Outcome> {
  const { bodies, clock, log } = options;
  const begin = clock.monotonic();
  const result = await call(options, message, signal);
  const seconds = (clock.monotonic() - begin) / 1000;
  const policy = options.retries(message.fn);
  const decision = decide(result, message.attempts, policy, clock.now(), Math.random());
  const { status, error } = result;
  const what = { status, ...(error !== undefined && { error }) };
  if (typeof decision === "object") {
    if (result.answer) await bodies.drop(result.answer.body);
    return { to: "queued", due: clock.now() + decision.waitMs, ...what };
  }
  if (decision === "dead") {
    const { callId, fn, attempts } = message;
    log.warn({ callId, fn, attempts, status }, "an asynchronous call was given up");
  }
  if (message.callback === null) return { to: decision, ...what };
  return { to: decision, ...what, next: callbackFor(options, message, result, seconds, policy) };
}

async function call(options: DeliveryOptions, message: Message, signal: AbortSignal): Promise<CallResult> {
  const { bodies } = options;
  const failed = (error: string): CallResult => ({
    ...{ status: 503, isInternal: true, retryAfter: undefined, answer: null, error },
  });
  let res: IncomingMessage;
  try {
    res = await options.deliver({
      ...{ address: message.fn, target: message.target, headers: message.headers, signal },
      ...{ body: bodies.read(message.body), bodyBytes: message.body.bytes },
    });
  } catch (e) {
    return failed(messageOf(e));
  }
  try {
    const isInternal = res.headers["x-openfaas-internal"] !== undefined;
    const heard = { status: res.statusCode!, isInternal, retryAfter: res.headers["retry-after"] };
    if (message.callback === null) {
      const error = await endOf(res, isInternal);
      return { ...heard, answer: null, ...(error !== undefined && { error }) };
    }
    const body = await bodies.keep(res, options.maxBodyBytes);
    // the function did its work: to have it do so again would bring the same
    if (body === null)
      return { ...heard, isInternal: false, answer: null, error: "its answer is too large for a callback" };
    return { ...heard, answer: { headers: res.rawHeaders, body } };
  } catch (e) {
    return failed(`its answer broke off: ${messageOf(e)}`);
  } finally {
    res.destroy();
  }
}

/** Reads an answer to its end; the platform's sentence, if it is the platform's. */
async function endOf(res: IncomingMessage, isInternal: boolean): Promise<string | undefined> {
  let text = "";
  for await (const piece of res) if (isInternal) text += piece;
  return isInternal ? text.trim() : undefined;
}

/** Fields of an answer that are about its connection or come anew: contracts/api.md §4.4. */
const replaced = new Set([
  ...["connection", "keep-alive", "transfer-encoding", "content-length", "date"],
  ...["x-call-id", "x-duration-seconds", "x-function-status", "x-function-name", "x-retry", "x-retry-max"],
]);

function callbackFor(
  { defaultNamespace, clock }: DeliveryOptions,
  { callId, fn, callback, attempts }: Message,
  { status, answer }: CallResult,
  seconds: number,
  policy: RetryPolicy,
): NewMessage {
  const headers: string[] = [];
  const given = answer?.headers ?? [];
  for (let i = 0; i < given.length; i += 2)
    if (!replaced.has(given[i]!.toLowerCase())) headers.push(given[i]!, given[i + 1]!);
  const suffix = `.${defaultNamespace}`;
  headers.push("X-Call-Id", callId, "X-Duration-Seconds", seconds.toFixed(6));
  headers.push("X-Function-Status", String(answer ? status : 503));
  headers.push("X-Function-Name", fn.endsWith(suffix) ? fn.slice(0, -suffix.length) : fn);
  headers.push("User-Agent", "napd-queue-worker");
  if (attempts > 1) headers.push("X-Retry", String(attempts - 1), "X-Retry-Max", String(policy.attempts - 1));
  const body = answer?.body ?? emptyBody;
  return { callId, lane: "callback", fn, target: callback!, headers, body, callback: null, created: clock.now() };
}

async function attemptCallback(options: DeliveryOptions, message: Message, signal: AbortSignal): Promise<Outcome> {
  const { bodies, guard, clock, log } = options;
  const url = parseCallback(message.target)!;
  const { callId, fn, attempts } = message;
  let result: Result;
  let error: string | undefined;
  try {
    if (isGateway(url)) return await toGateway(options, message, url, signal);
    const headers = [...message.headers, "Content-Length", String(message.body.bytes)];
    result = await postCallback(guard, url, headers, bodies.read(message.body), signal);
    if (result.status >= 300) error = `the callback was answered with ${result.status}`;
  } catch (e) {
    error = messageOf(e);
    const isRefused = e instanceof AppError && e.code === "CALLBACK_REFUSED";
    result = { status: isRefused ? 403 : 503, isInternal: false, retryAfter: undefined };
  }
  if (error === undefined) return { to: "done" };
  const decision = decide(result, attempts, callbackRetries, clock.now(), Math.random());
  const what = { status: result.status, error };
  if (typeof decision === "object") return { to: "queued", due: clock.now() + decision.waitMs, ...what };
  log.warn({ callId, fn, attempts, err: error }, "a callback was given up");
  return { to: "dead", ...what };
}

/** A callback that names the gateway calls a function of ours, at once or through the queue. */
async function toGateway(options: DeliveryOptions, message: Message, url: URL, signal: AbortSignal): Promise<Outcome> {
  const [, kind, name, rest = ""] = /^\/(function|async-function)\/([^/]+)(.*)$/.exec(url.pathname) ?? [];
  if (!kind || !name) throw new AppError("CALLBACK_FAILED", [url.host, "only functions can be called there"]);
  const fn = name.includes(".") ? name : `${name}.${options.defaultNamespace}`;
  const target = `${rest || "/"}${url.search}`;
  const next = { ...message, lane: "call" as const, fn, target, callback: null, created: options.clock.now() };
  // it takes this one's place, with its body: nothing can happen in between
  if (kind === "async-function") {
    const body = await copied(options, message);
    return { to: "done", next: { ...next, body } };
  }
  const result = await call(options, { ...next, callback: null }, signal);
  if (result.status < 300) return { to: "done" };
  const decision = decide(result, message.attempts, callbackRetries, options.clock.now(), Math.random());
  const what = { status: result.status, error: result.error ?? `the callback was answered with ${result.status}` };
  if (typeof decision === "object") return { to: "queued", due: options.clock.now() + decision.waitMs, ...what };
  return { to: "dead", ...what };
}

/** A body of its own for a message that outlives the one that has it. */
async function copied({ bodies, maxBodyBytes }: DeliveryOptions, { body }: Message): Promise<StoredBody> {
  return body.file === null ? body : (await bodies.keep(bodies.read(body), maxBodyBytes))!;
}
