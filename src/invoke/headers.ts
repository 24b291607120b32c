/** Headers that belong to one connection and never travel on: RFC 9110 §7.6.1, contracts/api.md §1.4. */
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

/** Names that a Connection header lists besides; usually none. */
function listed(connection: string): readonly string[] {
  if (connection === "" || /^(keep-alive|close)$/i.test(connection)) return [];
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
 * The request's headers as the function gets them, as a flat list of names and values in the order they came.
 * `Host` becomes the function's own; `Expect` was answered by us.
 */
export function requestHeaders(raw: readonly string[], call: CallHeaders, host: string, peer: string): string[] {
  const out: string[] = [];
  let connection = "";
  for (let i = 0; i < raw.length; i += 2)
    if (raw[i]!.length === 10 && raw[i]!.toLowerCase() === "connection")
      connection = connection === "" ? raw[i + 1]! : `${connection},${raw[i + 1]}`;
  const drop = listed(connection);
  let hasCallId = false;
  let hasForwardedHost = false;
  let hasForwardedFor = false;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    const lower = name.toLowerCase();
    if (hopByHop.has(lower) || lower === "host" || lower === "expect" || (drop.length > 0 && drop.includes(lower)))
      continue;
    if (lower === "x-call-id") hasCallId = true;
    else if (lower === "x-forwarded-host") hasForwardedHost = true;
    else if (lower === "x-forwarded-for") hasForwardedFor = true;
    out.push(name, raw[i + 1]!);
  }
  if (!hasCallId) out.push("X-Call-Id", call.callId);
  out.push("X-Start-Time", call.startTime);
  if (!hasForwardedHost && host !== "") out.push("X-Forwarded-Host", host);
  if (!hasForwardedFor) out.push("X-Forwarded-For", peer);
  return out;
}

/**
 * The function's headers as the caller gets them. The platform's own are added where the function set none; without a
 * Content-Type the request's is used, else text/plain (contracts/api.md §1.4), unless there cannot be a body.
 */
export function responseHeaders(
  raw: readonly (Buffer | string)[],
  status: number,
  call: CallHeaders,
  requestType: string | undefined,
): string[] {
  const out: string[] = [];
  let drop: readonly string[] = [];
  let hasCallId = false;
  let hasStartTime = false;
  let hasType = false;
  for (let i = 0; i < raw.length; i += 2) {
    const name = text(raw[i]!);
    const value = text(raw[i + 1]!);
    const lower = name.toLowerCase();
    if (lower === "connection") drop = [...drop, ...listed(value)];
    if (hopByHop.has(lower)) continue;
    if (lower === "x-call-id") hasCallId = true;
    else if (lower === "x-start-time") hasStartTime = true;
    else if (lower === "content-type") hasType = true;
    out.push(name, value);
  }
  if (drop.length > 0)
    for (let i = out.length - 2; i >= 0; i -= 2) if (drop.includes(out[i]!.toLowerCase())) out.splice(i, 2);
  if (!hasCallId) out.push("X-Call-Id", call.callId);
  if (!hasStartTime) out.push("X-Start-Time", call.startTime);
  if (!hasType && status !== 204 && status !== 304) out.push("Content-Type", requestType ?? "text/plain");
  return out;
}

function text(part: Buffer | string): string {
  return typeof part === "string" ? part : part.toString("latin1");
}
