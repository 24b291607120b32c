import { Cron as Pattern } from "croner";
import { formatDuration, parseDuration } from "../base/durations.ts";
import { messageOf } from "../base/errors.ts";
import { isTimeZone } from "../base/time-zone.ts";

/** When something is due, again and again. Instants are ms since the epoch, and whole seconds. */
export interface Schedule {
  /** As it was written, without its time zone. */
  readonly expression: string;
  /** IANA name; an interval has none. */
  readonly timeZone: string | null;
  /** Ms, of `@every`; null for one that goes by wall-clock time. */
  readonly intervalMs: number | null;
  /** The first instant after this one; null when there is none any more. */
  next(after: number): number | null;
}

/**
 * Reads one expression as cron-connector does (contracts/cli.md §6.2): five fields, `@daily` and its like,
 * `@every 1m30s`, a prefix `TZ=` or `CRON_TZ=`; beyond it a sixth field for seconds, in front, and 7 for Sunday.
 * Throws a sentence that says what is wrong.
 *
 * Where clocks are changed, what is due in the hour that is left out comes at its end, and what is due in the hour
 * that comes twice comes the first time; schedules of every hour or less go on in even steps.
 */
export function parseSchedule(text: string, defaultZone: string): Schedule {
  const [, zone = defaultZone, expression = ""] = /^\s*(?:(?:CRON_)?TZ=(\S*)\s+)?(.*?)\s*$/s.exec(text)!;
  if (!isTimeZone(zone)) throw new Error(`"${zone}" is not a time zone such as Europe/Berlin`);
  const [, duration] = /^@every\s+(\S+)$/.exec(expression) ?? [];
  if (duration !== undefined) return interval(expression, duration);
  const fields = expression.split(/\s+/).length;
  if (!expression.startsWith("@") && fields !== 5 && fields !== 6)
    throw new Error(
      `"${expression}" has ${expression === "" ? 0 : fields} fields; a schedule has five (minute hour day month weekday), or six with seconds in front`,
    );
  const pattern = patternOf(expression, zone);
  const next = (after: number) => pattern.nextRun(new Date(after))?.getTime() ?? null;
  if (next(Date.UTC(2000, 0)) === null) throw new Error(`"${expression}" never comes: there is no such day`);
  return { expression, timeZone: zone, intervalMs: null, next };
}

function patternOf(expression: string, timezone: string): Pattern {
  try {
    // sloppyRanges: "5/15" is "5-59/15" for cron-connector
    return new Pattern(expression, { timezone, paused: true, mode: "5-or-6-parts", sloppyRanges: true });
  } catch (e) {
    throw new Error(`"${expression}": ${messageOf(e).replace(/^CronPattern: /, "")}`, { cause: e });
  }
}

function interval(expression: string, duration: string): Schedule {
  const ms = parseDuration(duration);
  if (ms === undefined || ms < 1000)
    throw new Error(`"${expression}" needs a duration of ${formatDuration(1000)} at least, such as @every 1m30s`);
  const intervalMs = Math.floor(ms / 1000) * 1000;
  const next = (after: number) => Math.floor(after / 1000) * 1000 + intervalMs;
  return { expression, timeZone: null, intervalMs, next };
}
