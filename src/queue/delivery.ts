import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Deliver } from "../invoke/internal.ts";
import { emptyBody, type MessageBodies } from "./bodies.ts";
import { type Answer, type CallResult, makeCall, notMade, retryHeaders, without } from "./call.ts";
import { attemptCallback } from "./callbacks.ts";
import type { Guard } from "./guard.ts";
import type { Results } from "./results.ts";
import { decide, type RetryPolicy } from "./retry.ts";
import type { Message, Outcome } from "./store.ts";

interface Policy extends RetryPolicy {
  /** 0 for not at all. */
  readonly keepResultsMs: number;
}

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
  readonly policy: (fn: string) => Policy;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Attempts beyond those of the policy, which napd's own end has cut short: a call that is begun more often than that
 * most likely is what ends napd.
 */
const maxCutShort = 10;
const deadly = "napd ended before it did, again and again";

/** Ms before an attempt is repeated that our own disk or server has failed. */
const failureWaitMs = 10_000;

/** Makes an attempt at a message of either lane; never fails. */
export function openDelivery(options: DeliveryOptions): (message: Message, signal: AbortSignal) => Promise<Outcome> {
  const { clock, log } = options;
  return async (message, signal) => {
    try {
      return await (message.lane === "call" ? attemptCall : attemptCallback)(options, message, signal);
    } catch (e) {
      const error = messageOf(e);
      log.error({ callId: message.callId, err: error }, "an attempt at an asynchronous call could not be ended");
      return { to: "queued", due: clock.now() + failureWaitMs, error };
    }
  };
}

/** A call after its last attempt. */
interface Ended {
  readonly message: Message;
  readonly policy: Policy;
  readonly result: CallResult;
  readonly seconds: number;
}

async function attemptCall(options: DeliveryOptions, message: Message, signal: AbortSignal): Promise<Outcome> {
  const { bodies, clock, log, maxBodyBytes, maxResultBytes } = options;
  const { callId, fn, attempts, callback } = message;
  const policy = options.policy(fn);
  const keeps = policy.keepResultsMs > 0;
  const keepBytes = callback !== null ? maxBodyBytes : keeps ? maxResultBytes : null;
  const begin = clock.monotonic();
  const isDeadly = attempts > policy.attempts + maxCutShort;
  const result = isDeadly ? notMade(deadly) : await makeCall(options, message, policy, keepBytes, signal);
  const ended: Ended = { message, policy, result, seconds: (clock.monotonic() - begin) / 1000 };
  const { status, answer, error } = result;
  const body = answer?.body ?? null;
  const decision = decide(result, attempts, policy, clock.now(), Math.random());
  // cancelled, or napd stops: what came of it does not count
  if (body && (signal.aborted || typeof decision === "object")) await bodies.drop(body);
  if (signal.aborted) return { to: "done" };
  const what = { status, ...(error !== undefined && { error }) };
  if (typeof decision === "object") return { to: "queued", due: clock.now() + decision.waitMs, ...what };
  if (decision === "dead")
    log.warn({ callId, fn, attempts, status, ...(error && { err: error }) }, "an asynchronous call was given up");
  if (keeps) await keepResult(options, ended);
  if (callback !== null) return { to: decision, ...what, ...callbackFor(options, ended, callback) };
  if (body) await bodies.drop(body);
  return { to: decision, ...what };
}

function keepResult({ results, bodies, maxResultBytes, ...options }: DeliveryOptions, ended: Ended): Promise<void> {
  const { message, policy, result } = ended;
  const body = result.answer?.body ?? null;
  const isWhole = result.answer === null || (body !== null && body.bytes <= maxResultBytes);
  const bytes = isWhole && body ? body.bytes : 0;
  const head = { headers: headersFor(options, ended, result.answer), bytes, isWhole };
  return results.put(message.callId, policy.keepResultsMs, head, bytes > 0 ? bodies.read(body!) : null);
}

/** The message that takes a call's place to tell of it, and why it cannot tell everything. */
function callbackFor(options: DeliveryOptions, ended: Ended, target: string): Pick<Outcome, "next" | "error"> {
  const { answer, error } = ended.result;
  const { callId, fn } = ended.message;
  const isMissing = answer !== null && answer.body === null;
  const headers = [...headersFor(options, ended, isMissing ? null : answer), ...agent];
  const plain = { lane: "callback", callback: null, created: options.clock.now() } as const;
  return {
    next: { ...plain, callId, fn, target, headers, body: answer?.body ?? emptyBody },
    ...(isMissing && { error: error ?? "its answer is too large for a callback" }),
  };
}

const agent = ["User-Agent", "napd-queue-worker"];

/** Fields of an answer that are about its connection or come anew: contracts/api.md §4.4. */
const replaced = new Set([
  ...["connection", "keep-alive", "transfer-encoding", "content-length", "date", "user-agent"],
  ...["x-call-id", "x-duration-seconds", "x-function-status", "x-function-name", "x-retry", "x-retry-max"],
]);

/** The fields of an answer, and what the contract adds to them; without an answer that was 503. */
function headersFor(
  { defaultNamespace }: Pick<DeliveryOptions, "defaultNamespace">,
  { message: { callId, fn, attempts }, policy, result, seconds }: Ended,
  answer: Answer | null,
): string[] {
  const suffix = `.${defaultNamespace}`;
  return [
    ...without(answer?.headers ?? [], replaced),
    ...["X-Call-Id", callId, "X-Duration-Seconds", seconds.toFixed(6)],
    ...["X-Function-Status", String(answer ? result.status : 503)],
    ...["X-Function-Name", fn.endsWith(suffix) ? fn.slice(0, -suffix.length) : fn],
    ...retryHeaders(attempts, policy),
  ];
}
