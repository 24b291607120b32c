const form = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)([.,]\d+)?(?:Z|([+-])(\d\d):(\d\d))$/;

/**
 * Ms since the epoch of an RFC 3339 time, with a fraction of any length (what is below a microsecond is dropped).
 * Undefined when it is none, or names a day or an hour that does not exist; leap seconds are none either, as in Go.
 */
export function parseTimestamp(text: string): number | undefined {
  const match = form.exec(text);
  if (!match) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    ...[number, number, number, number, number, number],
  ];
  const offset = Number(match[9] ?? 0) * 60 + Number(match[10] ?? 0);
  if (hour > 23 || minute > 59 || second > 59 || Number(match[9] ?? 0) > 23 || Number(match[10] ?? 0) > 59)
    return undefined;
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return undefined; // 31 February is 3 March
  const ms = Math.floor(Number(`0${(match[7] ?? "").replace(",", ".")}`) * 1e6) / 1e3;
  date.setUTCHours(hour, minute - (match[8] === "-" ? -offset : offset), second);
  return date.getTime() + ms;
}
