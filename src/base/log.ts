import { type DestinationStream, type Logger, pino } from "pino";

export type { Logger };

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "silent";

/**
 * The root logger: JSON lines on standard error. Messages are constant, data goes into fields:
 * `log.info({ fn, ns, ms }, "replica ready")`. One line per change of state, none per warm request.
 * `forJournal`: lines begin with their priority as sd-daemon(3) has it, and leave the time to journald.
 */
export function openLog(level: LogLevel, forJournal = false): Logger {
  const standardError = pino.destination({ dest: 2, sync: true });
  return pino(
    {
      level,
      base: undefined,
      redact: ["password", "*.password", "authorization", "*.authorization"],
      timestamp: forJournal ? false : pino.stdTimeFunctions.isoTime,
    },
    forJournal ? withPriority(standardError) : standardError,
  );
}

/** Pino tells a stream that has this the level of each line: `lastLevel`. */
const wantsMetadata = Symbol.for("pino.metadata");

/** Writes each line with its priority before it: `<3>{"level":50,…}`. */
export function withPriority(to: DestinationStream): DestinationStream {
  const stream = {
    [wantsMetadata]: true,
    lastLevel: 0,
    write: (line: string) => to.write(`<${priorityOf(stream.lastLevel)}>${line}`),
  };
  return stream;
}

/** syslog's, which journald filters and colours by. */
function priorityOf(level: number): number {
  if (level >= 60) return 2; // critical
  if (level >= 50) return 3;
  if (level >= 40) return 4;
  return level >= 30 ? 6 : 7;
}
