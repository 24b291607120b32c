/** A length of time in one unit, for tables: `90s`, `12m`, `30h`, `9d`. */
export function span(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 2 * 3600) return `${Math.round(seconds / 60)}m`;
  if (seconds < 2 * 86400) return `${Math.round(seconds / 3600)}h`;
  return `${Math.round(seconds / 86400)}d`;
}

/** How long ago an instant of RFC 3339 was; nothing of no instant. */
export const age = (time: string | null | undefined): string => (time ? span(Date.now() - Date.parse(time)) : "");

/** How long it is until then. */
export const until = (time: string | null | undefined): string =>
  time ? `in ${span(Date.parse(time) - Date.now())}` : "";
