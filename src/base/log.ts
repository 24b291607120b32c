import { type Logger, pino } from "pino";

export type { Logger };

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "silent";

/**
 * The root logger: JSON lines on standard error. Messages are constant, data goes into fields:
 * `log.info({ fn, ns, ms }, "replica ready")`. One line per change of state, none per warm request.
 */
export function openLog(level: LogLevel): Logger {
  return pino(
    {
      level,
      base: undefined,
      redact: ["password", "*.password", "authorization", "*.authorization"],
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    pino.destination({ dest: 2, sync: true }),
  );
}
