import { fieldValue, type RequestHead } from "../http1/head.ts";
import { Output } from "./output.ts";
import { isUtc } from "./zone.ts";

/** The process' own outputs. Nobody else writes to descriptors 1 and 2. */
export const stdout = new Output(1);
export const stderr = new Output(2);

let second = -1;
let secondText = "";

const utc = isUtc(process.env.TZ);

/** `2026/11/21 00:10:10 `, local time, as Go's log package writes it (contracts/watchdog.md §1.4). */
export function timestamp(nowMs: number): string {
  const current = Math.floor(nowMs / 1000);
  if (current === second) return secondText;
  second = current;
  // Only the getters of local time need time zone data.
  const local = utc ? 0 : new Date(nowMs).getTimezoneOffset() * 60_000;
  const iso = new Date(nowMs - local).toISOString();
  secondText = `${iso.slice(0, 10).replaceAll("-", "/")} ${iso.slice(11, 19)} `;
  return secondText;
}

let json = false;

/** Chooses between lines of text and one JSON object per line (`log_format`). */
export function setLogFormat(format: "text" | "json"): void {
  json = format === "json";
}

/**
 * One line of the watchdog on standard error. `fields` are for JSON only; `line` says it all, and may have its
 * line end already.
 */
export function log(line: string, fields?: Record<string, string | number>): void {
  const message = line.endsWith("\n") ? line.slice(0, -1) : line;
  if (json) stderr.writeLine(jsonLine({ source: "watchdog", msg: message, ...fields }));
  else stderr.writeLine(`${timestamp(Date.now())}${message}\n`);
}

/** A line of the JSON log: the time, then `fields`. */
export function jsonLine(fields: Record<string, unknown>): string {
  return `${JSON.stringify({ time: new Date().toISOString(), ...fields })}\n`;
}

/** What an access line says about a call. */
export interface Access {
  request: RequestHead;
  /** `200`, or `404 Not Found` where the reference has the phrase too. */
  result: string;
  /** -1 when it is not known. */
  bytes: number;
  seconds: number;
  /** With the caller's X-Call-Id at the end (`log_callid`). */
  callId: boolean;
}

/** The line about one call; none for the probes of a kubelet (contracts/watchdog.md §3.2). */
export function logAccess({ request, result, bytes, seconds, callId }: Access): void {
  const { method, target, fields } = request;
  if (fieldValue(fields, "user-agent").startsWith("kube-probe")) return;
  const id = callId ? fieldValue(fields, "x-call-id") || "none" : "";
  let line = `${method} ${target} - ${result} - ContentLength: ${formatSize(bytes)} (${seconds.toFixed(4)}s)`;
  if (id) line += ` [${id}]`;
  if (!json) log(line);
  else
    log(line, { method, uri: target, status: Number.parseInt(result, 10), bytes, seconds, ...(id && { callId: id }) });
}

const units = ["B", "kB", "MB", "GB", "TB"];

/** A size in decimal units with four significant digits: `5B`, `160.8kB`, `8.389MB`; -1 stays `-1B`. */
export function formatSize(bytes: number): string {
  let n = bytes;
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${+n.toPrecision(4)}${units[unit]}`;
}
