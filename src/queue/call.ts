import type { IncomingMessage } from "node:http";
import { AppError, messageOf } from "../base/errors.ts";
import type { Deliver } from "../invoke/internal.ts";
import type { MessageBodies } from "./bodies.ts";
import type { Result, RetryPolicy } from "./retry.ts";
import type { Message, StoredBody } from "./store.ts";

/** An answer to a call. */
export interface Answer {
  /** Names and values in turn. */
  readonly headers: readonly string[];
  /** Null when nobody wants it, or when it is larger than anybody does. */
  readonly body: StoredBody | null;
}

/** What a call came to; `answer` is null when there is none: the function was never reached, or cut it off. */
export interface CallResult extends Result {
  readonly answer: Answer | null;
  readonly error?: string;
}

/**
 * Calls the function of a message, and reads its answer to the end, whatever is kept of it: a function that streams
 * works as long as somebody reads. `keepBytes`: up to how many its body is kept, null for not at all. Never fails.
 */
export async function makeCall(
  { deliver, bodies }: { readonly deliver: Deliver; readonly bodies: MessageBodies },
  message: Message,
  policy: Pick<RetryPolicy, "attempts">,
  keepBytes: number | null,
  signal: AbortSignal,
): Promise<CallResult> {
  let res: IncomingMessage;
  try {
    res = await deliver({
      ...{ address: message.fn, target: message.target, headers: headersOf(message, policy), signal },
      ...{ body: bodies.read(message.body), bodyBytes: message.body.bytes },
    });
  } catch (e) {
    return notMade(messageOf(e));
  }
  const isInternal = res.headers["x-openfaas-internal"] !== undefined;
  const heard = { status: res.statusCode!, isInternal, retryAfter: res.headers["retry-after"] };
  const { rawHeaders: headers } = res;
  try {
    // what the platform says is short, and wanted for the record
    const body = keepBytes === null && !isInternal ? null : await bodies.keep(res, keepBytes ?? maxSentence);
    if (body === null) for await (const _ of res);
    const answer = { headers, body: keepBytes === null ? null : body };
    if (!isInternal) return { ...heard, answer };
    const sentence = body?.data ? Buffer.from(body.data).toString().trim() : "";
    return { ...heard, answer, error: sentence };
  } catch (e) {
    // it could not be kept: the function has done its work, and would only do it again
    if (e instanceof AppError) return { ...heard, answer: { headers, body: null }, error: e.message };
    return notMade(`its answer broke off: ${messageOf(e)}`);
  } finally {
    res.destroy();
  }
}

/** Bytes of an answer of the platform. */
const maxSentence = 4096;

/** Of a call that the function did not answer. */
export function notMade(error: string): CallResult {
  return { status: 503, isInternal: true, retryAfter: undefined, answer: null, error };
}

/** An attempt that repeats another one says so, to the function as to the callback: contracts/api.md §4.4. */
function headersOf({ headers, attempts }: Message, policy: Pick<RetryPolicy, "attempts">): readonly string[] {
  return attempts > 1 ? [...without(headers, retryFields), ...retryHeaders(attempts, policy)] : headers;
}

const retryFields = new Set(["x-retry", "x-retry-max"]);

/** Which repetition it is and how many there are at most; none for a first attempt. */
export function retryHeaders(attempts: number, policy: Pick<RetryPolicy, "attempts">): string[] {
  return attempts > 1 ? ["X-Retry", String(attempts - 1), "X-Retry-Max", String(policy.attempts - 1)] : [];
}

/** A list of names and values without those of `names`, which are in lower case. */
export function without(headers: readonly string[], names: ReadonlySet<string>): string[] {
  const out: string[] = [];
  for (let i = 0; i < headers.length; i += 2)
    if (!names.has(headers[i]!.toLowerCase())) out.push(headers[i]!, headers[i + 1]!);
  return out;
}
