import type { Exchange, Handler } from "../http1/exchange.ts";

/** What a mode offers to the rest of the watchdog. */
export interface Mode {
  /** Gets going; calls are served from here on. Resolves when the mode can no longer serve, with the reason. */
  start(): Promise<string>;
  /** Whether the function can take calls now (`/_/ready`). */
  ready(): boolean;
  /** Makes the handler of one call. */
  serve(exchange: Exchange): Handler;
  /** Passes a signal on to the function, if there is one that runs all the time. */
  signal(name: NodeJS.Signals): void;
  /** Ends what still runs, after the last call. */
  stop(): Promise<void>;
}

/** Seconds since `startedAt` with six decimals, for X-Duration-Seconds and log lines. */
export function secondsSince(startedAt: number): string {
  return ((performance.now() - startedAt) / 1000).toFixed(6);
}

/** A handler of which a mode overrides what it cares about. */
export class BaseHandler implements Handler {
  work: Promise<void> | null = null;
  bodyData(_piece: Buffer): void {}
  bodyEnd(): void {}
  bodyError(_why: string): void {}
  batchEnd(): void {}
  drain(): void {}
  inputEnded(): void {}
  clientGone(): void {}
  execTimeout(): void {}
}
