import type { RequestHead } from "../http1/head.ts";
import { CHUNKED } from "../http1/head.ts";

/**
 * The environment of a process that serves one request: the watchdog's own, then what the request says, later
 * entries over earlier ones (contracts/watchdog.md §2.1; its numbers are those below). Lengths and host are told by
 * the classic watchdog only; the of family has them as far as they are plain fields.
 */
export function requestEnvironment(
  base: Record<string, string>,
  request: RequestHead,
  family: "classic" | "of" = "classic",
): Record<string, string> {
  const env = { ...base };
  const { target, bodyLength } = request;
  addFields(env, request); // 1
  env.Http_Method = request.method; // 2
  if (family === "classic") env.Http_ContentLength = env.Http_Content_Length = String(bodyLength); // 3; CHUNKED is -1
  if (bodyLength === CHUNKED) env.Http_Transfer_Encoding = "chunked"; // 4
  const { path, query } = splitTarget(target);
  if (query !== "") env.Http_Query = utf8(query); // 5
  env.Http_Path = decodePath(path); // 6
  if (family === "classic" && request.host !== "") env.Http_Host = utf8(request.host); // 7
  return env;
}

/** The first value of every field, except those that are no header to the function: Host and Transfer-Encoding. */
function addFields(env: Record<string, string>, { fields, bodyLength }: RequestHead): void {
  const seen = new Set<string>();
  for (let i = 0; i < fields.length; i += 2) {
    const name = canonicalName(fields[i]!);
    if (seen.has(name) || name === "Host" || name === "Transfer-Encoding") continue;
    if (name === "Content-Length" && bodyLength === CHUNKED) continue;
    seen.add(name);
    env[`Http_${name.replaceAll("-", "_")}`] = utf8(fields[i + 1]!);
  }
}

/** A field's name as Go writes it: `x-call-id` is `X-Call-Id`, `x_FOO-bAr` is `X_foo-Bar`. */
export function canonicalName(name: string): string {
  return name.toLowerCase().replace(/(^|-)[a-z]/g, (start) => start.toUpperCase());
}

/** Path and query of a request target, which may also be absolute (`http://host/path`) or `*`. */
export function splitTarget(target: string): { path: string; query: string } {
  const origin = originForm(target);
  const at = origin.indexOf("?");
  return at < 0 ? { path: origin, query: "" } : { path: origin.slice(0, at), query: origin.slice(at + 1) };
}

/** The target without scheme and authority: servers must accept the absolute form (RFC 9112 §3.2.2). */
export function originForm(target: string): string {
  const match = /^https?:\/\/[^/?]*(.*)$/i.exec(target);
  if (!match) return target;
  return match[1]!.startsWith("/") ? match[1]! : `/${match[1]}`;
}

/** `%41` is A; what is not a valid escape stays as it is. */
function decodePath(path: string): string {
  return utf8(path.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))));
}

/** Text of bytes that were read as latin1. Environments are UTF-8 here; bytes that are not become U+FFFD. */
function utf8(latin1: string): string {
  for (let i = 0; i < latin1.length; i++)
    if (latin1.charCodeAt(i) > 127) return Buffer.from(latin1, "latin1").toString("utf8");
  return latin1;
}
