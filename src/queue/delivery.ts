import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { Deliver } from "../invoke/internal.ts";
import { emptyBody, type MessageBodies } from "./bodies.ts";
import { type Answer, makeCall, retryHeaders, without } from "./call.ts";
import { attemptCallback } from "./callbacks.ts";
import type { Guard } from "./guard.ts";
import type { Results } from "./results.ts";
import { decide, type RetryPolicy } from "./retry.ts";
import type { Message, Outcome } from "./store.ts";

export interface DeliveryOptions {
  readonly deliver: Deliver;
  readonly bodies: MessageBodies;
  readonly results: Results;
  readonly guard: Guard;
  /** Largest answer that a callback tells. */
  readonly maxBodyBytes: number;
  /** Largest answer that is kept as a result. */
  readonly maxResultBytes: number;
  readonly defaultNamespace: string;
  /** `keepResultsMs`: 0 for not at all. */
  readonly policy: (fn: string) => RetryPolicy & { readonly keepResultsMs: number };
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Attempts beyond those of the policy, which napd's own end has cut short: a call that is begun more often than that
 * most likely is what ends napd.
 */
const maxCutShort = 10;

/** Makes an attempt at a message of either lane. */
export function openDelivery(options: DeliveryOptions): (message: Message, signal: AbortSignal) => Promise<Outcome> {
  return (message, signal) =>
    message.lane === "call" ? attemptCall(options, message, signal) : attemptCallback(options, message, signal);
}

async function attemptCall(options: DeliveryOptions, message: Message, signal: AbortSignal): Promise<Outcome> {
  const { bodies, results, clock, log, maxBodyBytes, maxResultBytes } = options;
  const { callId, fn, attempts, callback } = message;
  const policy = options.policy(fn);
  if (attempts > policy.attempts + maxCutShort) {
    log.warn({ callId, fn, attempts }, "an asynchronous call was given up: napd has ended under it again and again");
    return { to: "dead", error: "napd ended before it did, again and again" };
  }
  const keeps = policy.keepResultsMs > 0;
  const keepBytes = callback !== null ? maxBodyBytes : keeps ? maxResultBytes : null;
  const begin = clock.monotonic();
  const result = await makeCall(options, message, policy, keepBytes, signal);
  const seconds = (clock.monotonic() - begin) / 1000;
  const { status, answer, error } = result;
  const body = answer?.body ?? null;
  const decision = decide(result, attempts, policy, clock.now(), Math.random());
  // cancelled, or napd stops: what came of it does not count
  if (body && (signal.aborted || typeof decision === "object")) await bodies.drop(body);
  if (signal.aborted) return { to: "done" };
  const what = { status, ...(error !== undefined && { error }) };
  if (typeof decision === "object") return { to: "queued", due: clock.now() + decision.waitMs, ...what };
  if (decision === "dead") log.warn({ callId, fn, attempts, status }, "an asynchronous call was given up");
  const headersFor = (heard: Answer | null) => resultHeaders(options, message, policy, status, heard, seconds);
  if (keeps) {
    const isWhole = answer === null || (body !== null && body.bytes <= maxResultBytes);
    const head = { headers: headersFor(answer), bytes: isWhole && body ? body.bytes : 0, isWhole };
    await results.put(callId, policy.keepResultsMs, head, isWhole && body ? bodies.read(body) : null);
  }
  if (callback === null) {
    if (body) await bodies.drop(body);
    return { to: decision, ...what };
  }
  const isMissing = answer !== null && body === null;
  const told = { lane: "callback", callId, fn, target: callback, callback: null, created: clock.now() } as const;
  return {
    ...{ to: decision, ...what, ...(isMissing && { error: error ?? "its answer is too large for a callback" }) },
    next: { ...told, headers: [...headersFor(isMissing ? null : answer), ...agent], body: body ?? emptyBody },
  };
}

const agent = ["User-Agent", "napd-queue-worker"];

/** Fields of an answer that are about its connection or come anew: contracts/api.md §4.4. */
const replaced = new Set([
  ...["connection", "keep-alive", "transfer-encoding", "content-length", "date", "user-agent"],
  ...["x-call-id", "x-duration-seconds", "x-function-status", "x-function-name", "x-retry", "x-retry-max"],
]);

/** The function's fields, and what the contract adds to them; without an answer that was 503. */
function resultHeaders(
  { defaultNamespace }: DeliveryOptions,
  { callId, fn, attempts }: Message,
  policy: RetryPolicy,
  status: number,
  answer: Answer | null,
  seconds: number,
): string[] {
  const suffix = `.${defaultNamespace}`;
  return [
    ...without(answer?.headers ?? [], replaced),
    ...["X-Call-Id", callId, "X-Duration-Seconds", seconds.toFixed(6)],
    ...["X-Function-Status", String(answer ? status : 503)],
    ...["X-Function-Name", fn.endsWith(suffix) ? fn.slice(0, -suffix.length) : fn],
    ...retryHeaders(attempts, policy),
  ];
}
