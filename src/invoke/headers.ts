import type { IncomingMessage } from "node:http";
import type { ResponseHead } from "../http1/head.ts";
import { CHUNKED } from "../http1/head.ts";

/** Fields that belong to one connection and never travel on: RFC 9110 §7.6.1, contracts/api.md §1.4. */
const hopByHop = new Set([
  "connection",
  "proxy-connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Fields of a request that are not simply copied. `Connection` cannot take the body's framing or the host away. */
const requestFields = new Set([
  ...hopByHop,
  "host",
  "expect",
  "content-length",
  "x-call-id",
  "x-forwarded-host",
  "x-forwarded-for",
]);

/** Fields of an answer that are not simply copied. */
const responseFields = new Set([...hopByHop, "content-length", "content-type", "x-call-id", "x-start-time"]);

/** Whether any of the names has so many characters: most fields need no more than this look. */
function lengthsOf(names: ReadonlySet<string>): Uint8Array {
  const lengths = new Uint8Array(256);
  for (const name of names) lengths[name.length] = 1;
  return lengths;
}

const requestLengths = lengthsOf(requestFields);
const responseLengths = lengthsOf(responseFields);

const none: readonly string[] = [];

/** Names that Connection lists beyond the usual, in lower case; usually none. */
function listed(connection: string | undefined): readonly string[] {
  if (connection === undefined || /^(keep-alive|close|upgrade)$/i.test(connection)) return none;
  return connection.split(",").map((name) => name.trim().toLowerCase());
}

/** What the platform adds to a call. */
export interface CallHeaders {
  /** The caller's X-Call-Id, or a new one. */
  readonly callId: string;
  /** Nanoseconds since the epoch, exact to the millisecond. */
  readonly startTime: string;
}

/**
 * The head of a request as the function gets it: what came, in the order and spelling it came in, without what is only
 * for us, and with what the platform adds. `authority` is the function's own host. `upgrade`: the protocol that the
 * caller wants to change to; then the function is told the caller's own host, which it compares with the page's Origin.
 */
export function requestHead(
  req: Pick<IncomingMessage, "method" | "rawHeaders" | "headers">,
  target: string,
  authority: string,
  call: CallHeaders,
  peer: string,
  upgrade: string | null,
): string {
  const { rawHeaders: raw, headers } = req;
  const drop = listed(headers.connection);
  const { host } = headers;
  let head = `${req.method} ${target} HTTP/1.1\r\nHost: ${upgrade !== null && host ? host : authority}\r\n`;
  let hasCallId = false;
  let hasForwardedHost = false;
  let hasForwardedFor = false;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    if (requestLengths[name.length] === 1 || drop !== none) {
      const lower = name.toLowerCase();
      if (lower === "content-length") {
        if (headers["transfer-encoding"] !== undefined) continue;
      } else {
        if (hopByHop.has(lower) || lower === "host" || lower === "expect" || drop.includes(lower)) continue;
        if (lower === "x-call-id") hasCallId = true;
        else if (lower === "x-forwarded-host") hasForwardedHost = true;
        else if (lower === "x-forwarded-for") hasForwardedFor = true;
      }
    }
    head += `${name}: ${raw[i + 1]}\r\n`;
  }
  if (headers["transfer-encoding"] !== undefined) head += "Transfer-Encoding: chunked\r\n";
  if (upgrade !== null) head += `Connection: Upgrade\r\nUpgrade: ${upgrade}\r\n`;
  if (!hasCallId) head += `X-Call-Id: ${call.callId}\r\n`;
  head += `X-Start-Time: ${call.startTime}\r\n`;
  if (!hasForwardedHost && host) head += `X-Forwarded-Host: ${host}\r\n`;
  if (!hasForwardedFor) head += `X-Forwarded-For: ${peer}\r\n`;
  return `${head}\r\n`;
}

/**
 * The fields of a request that is kept to be sent later, as a flat list of names and values: without framing and what
 * belongs to the connection, with the call's id, start and who made it.
 */
export function keptHeaders(
  { rawHeaders: raw, headers }: Pick<IncomingMessage, "rawHeaders" | "headers">,
  call: CallHeaders,
  peer: string,
): string[] {
  const drop = listed(headers.connection);
  const out: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const lower = raw[i]!.toLowerCase();
    if (hopByHop.has(lower) || drop.includes(lower)) continue;
    if (lower === "host" || lower === "expect" || lower === "content-length") continue;
    out.push(raw[i]!, raw[i + 1]!);
  }
  if (headers["x-call-id"] === undefined) out.push("X-Call-Id", call.callId);
  out.push("X-Start-Time", call.startTime);
  if (headers["x-forwarded-host"] === undefined && headers.host) out.push("X-Forwarded-Host", headers.host);
  if (headers["x-forwarded-for"] === undefined) out.push("X-Forwarded-For", peer);
  return out;
}

/**
 * The function's fields as the caller gets them, as a flat list of names and values. The platform's own are added
 * where the function set none; without a Content-Type the request's is used, else text/plain (contracts/api.md §1.4),
 * unless there cannot be a body. A length stays only where it frames the body, or tells of one that is not sent.
 */
export function responseHeaders(
  head: Pick<ResponseHead, "fields" | "status" | "bodyLength" | "hopFields">,
  call: CallHeaders,
  requestType: string | undefined,
): string[] {
  const { fields, status, hopFields } = head;
  const out: string[] = [];
  const dropsLength = head.bodyLength === CHUNKED || status < 200 || status === 204;
  let hasLength = false;
  let hasCallId = false;
  let hasStartTime = false;
  let hasType = status === 204 || status === 304 || status === 101;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!;
    if (responseLengths[name.length] === 1 || hopFields.length > 0) {
      const lower = name.toLowerCase();
      if (lower === "content-length") {
        if (dropsLength || hasLength) continue;
        hasLength = true;
      } else {
        if (hopByHop.has(lower) || hopFields.includes(lower)) continue;
        if (lower === "x-call-id") hasCallId = true;
        else if (lower === "x-start-time") hasStartTime = true;
        else if (lower === "content-type") hasType = true;
      }
    }
    out.push(name, fields[i + 1]!);
  }
  if (!hasCallId) out.push("X-Call-Id", call.callId);
  if (!hasStartTime) out.push("X-Start-Time", call.startTime);
  if (!hasType) out.push("Content-Type", requestType ?? "text/plain");
  return out;
}
