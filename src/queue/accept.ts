import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError, isAppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type CallHeaders, keptHeaders } from "../invoke/headers.ts";
import { callHeaders, type Invoke } from "../invoke/invoke.ts";
import { lingerAtEnd } from "../invoke/linger.ts";
import { refuse } from "../invoke/refuse.ts";
import type { MessageBodies } from "./bodies.ts";
import { isGateway, parseCallback } from "./callbacks.ts";
import type { Guard } from "./guard.ts";
import type { NewMessage } from "./store.ts";

export interface AcceptOptions {
  readonly defaultNamespace: string;
  readonly bodies: MessageBodies;
  readonly guard: Guard;
  readonly maxBodyBytes: number;
  /** What limits the body besides, 0 for nothing; undefined when there is no such function. */
  readonly functionBodyLimit: (fn: string) => number | undefined;
  /** A place in the queue for one more; fails with QUEUE_FULL or QUEUE_FUNCTION_FULL. It is released, or put into. */
  readonly reserve: (fn: string) => void;
  readonly release: (fn: string) => void;
  /** Resolves when the message is on disk. */
  readonly put: (message: NewMessage) => Promise<void>;
  /** Whether there was such a call. */
  readonly cancel: (callId: string) => Promise<boolean>;
  readonly log: Logger;
}

/** Calls that are answered at once and made later: contracts/api.md §4.1. */
export function openAccept(options: AcceptOptions): Invoke {
  return (req, res, address, target) => {
    if (req.socket.writableEnded) return; // it came behind an answer that has ended its connection
    const ids = callHeaders(req);
    handle(options, req, res, address, target, ids).catch((e) => {
      const error = e instanceof AppError ? e : new AppError("INTERNAL", [messageOf(e)], { cause: e });
      // those are told of once, by whoever knows
      const isKnown = isAppError(e, "DISK_FULL") || isAppError(e, "QUEUE_SERVER") || isAppError(e, "QUEUE_SERVER_FULL");
      if (error.status >= 500 && !isKnown)
        options.log.warn({ fn: address, err: error.message }, "an asynchronous call was refused");
      if (res.destroyed || res.headersSent) return;
      const closes = !req.complete;
      if (closes) lingerAtEnd(req.socket);
      refuse(res, error, ids, {
        ...(closes && { Connection: "close" }),
        ...((error.status === 429 || error.code === "QUEUE_SERVER") && { "Retry-After": "5" }),
      });
    });
  };
}

async function handle(
  options: AcceptOptions,
  req: IncomingMessage,
  res: ServerResponse,
  address: string,
  target: string,
  ids: CallHeaders,
): Promise<void> {
  const platform = { "X-Call-Id": ids.callId, "X-Start-Time": ids.startTime, "Content-Length": 0 };
  if (req.method === "DELETE") {
    // by id alone, or by name with the id in the query: an id may have characters that no name has
    const callId = new URLSearchParams(target.replace(/^[^?]*/, "")).get("call-id") ?? address;
    if (!(await options.cancel(callId))) throw new AppError("QUEUE_CALL_NOT_FOUND", [callId]);
    res.writeHead(202, { ...platform, "X-Call-Id": encodeURI(callId) }).end();
    return;
  }
  if (req.method !== "POST") throw new AppError("METHOD_NOT_ALLOWED", []);
  const fn = address.includes(".") ? address : `${address}.${options.defaultNamespace}`;
  const own = options.functionBodyLimit(fn);
  if (own === undefined) throw new AppError("FUNCTION_NOT_FOUND", [fn]);
  const callback = callbackOf(req, options.guard);
  const limit = own === 0 ? options.maxBodyBytes : Math.min(own, options.maxBodyBytes);
  if (Number(req.headers["content-length"] ?? 0) > limit) throw new AppError("QUEUE_BODY_TOO_LARGE", [limit]);

  options.reserve(fn);
  let isPut = false;
  try {
    if (req.headers.expect !== undefined && req.httpVersionMinor > 0) res.writeContinue();
    const body = await options.bodies.keep(req, limit);
    if (body === null) throw new AppError("QUEUE_BODY_TOO_LARGE", [limit]);
    const peer = `${req.socket.remoteAddress}:${req.socket.remotePort}`;
    const headers = keptHeaders(req, ids, peer);
    const created = Date.now();
    try {
      await options.put({ callId: ids.callId, lane: "call", fn, target, headers, body, callback, created });
      isPut = true;
    } catch (e) {
      await options.bodies.drop(body);
      throw e;
    }
  } finally {
    if (!isPut) options.release(fn);
  }
  if (!res.destroyed) res.writeHead(202, platform).end();
}

/** Fails with CALLBACK_INVALID, or CALLBACK_REFUSED when it names an address that is not allowed. */
function callbackOf(req: IncomingMessage, guard: Guard): string | null {
  const text = req.headers["x-callback-url"] as string | undefined;
  if (text === undefined || text === "") return null;
  const url = parseCallback(text);
  if (!url) throw new AppError("CALLBACK_INVALID", [text]);
  if (!isGateway(url)) guard.check(url.hostname);
  return text;
}
