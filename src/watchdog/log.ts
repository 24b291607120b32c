import { Output } from "./output.ts";
import { isUtc } from "./zone.ts";

/** The process' own outputs. Nobody else writes to descriptors 1 and 2. */
export const stdout = new Output(1);
export const stderr = new Output(2);

let second = -1;
let text = "";

const utc = isUtc(process.env.TZ);

/** `2026/11/21 00:10:10 `, local time, as Go's log package writes it (contracts/watchdog.md §1.4). */
export function timestamp(nowMs: number): string {
  const current = Math.floor(nowMs / 1000);
  if (current === second) return text;
  second = current;
  // Only the getters of local time need time zone data.
  const local = utc ? 0 : new Date(nowMs).getTimezoneOffset() * 60_000;
  const iso = new Date(nowMs - local).toISOString();
  text = `${iso.slice(0, 10).replaceAll("-", "/")} ${iso.slice(11, 19)} `;
  return text;
}

/** One line of the watchdog on standard error. */
export function log(message: string): void {
  stderr.writeLine(`${timestamp(Date.now())}${message}\n`);
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
