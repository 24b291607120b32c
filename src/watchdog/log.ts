import { Output } from "./output.ts";

/** The process' own outputs. Nobody else writes to descriptors 1 and 2. */
export const stdout = new Output(1);
export const stderr = new Output(2);

let second = -1;
let text = "";

/** `2026/11/21 00:10:10 `, local time, as Go's log package writes it (contracts/watchdog.md §1.4). */
export function timestamp(nowMs: number): string {
  const current = Math.floor(nowMs / 1000);
  if (current === second) return text;
  second = current;
  const d = new Date(nowMs);
  const two = (n: number): string => String(n).padStart(2, "0");
  const date = `${d.getFullYear()}/${two(d.getMonth() + 1)}/${two(d.getDate())}`;
  text = `${date} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())} `;
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
