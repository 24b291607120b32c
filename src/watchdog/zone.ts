import { readFileSync, readlinkSync } from "node:fs";

const UTC = /^(|UTC|UTC0|UCT|Universal|Zulu|GMT|GMT0|Greenwich)$/;

/**
 * Whether local time is UTC, as in nearly every container, found without the runtime's time zone data: to load those
 * takes about 12 ms of CPU on Bun 1.4.5, as much as all the rest of a start. `zone` is the variable TZ.
 */
export function isUtc(zone: string | undefined, file = "/etc/localtime"): boolean {
  if (zone !== undefined) return UTC.test(lastPart(zone));
  const target = attempt(() => readlinkSync(file));
  if (target !== null) return UTC.test(lastPart(target));
  const data = attempt(() => readFileSync(file, "latin1"));
  // No file means UTC (tzset(3)); a copy says its rule in its last line (RFC 9636 §3.3).
  return data === null || data.endsWith("\nUTC0\n");
}

function lastPart(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1).replace(/^:/, "");
}

function attempt<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}
