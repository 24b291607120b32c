import type { RequestHead } from "../../http1/head.ts";
import type { Deadline } from "./deadline.ts";
import type { TunnelEnd } from "./tunnel.ts";

export interface Limits {
  readTimeoutMs: number;
  writeTimeoutMs: number;
}

/** What serves an exchange. Every method may be called at any time until `clientGone` or the end of the answer. */
export interface Handler {
  bodyData(piece: Buffer): void;
  bodyEnd(): void;
  /** The rest of the body will not come. `why` is fit for the client, which may still be there. */
  bodyError(why: string): void;
  /** Everything that arrived together has been delivered: time to flush what was made of it. */
  batchEnd(): void;
  /** The client takes bytes again after `write` returned false. */
  drain(): void;
  /** The client will send nothing more; it may or may not still read. */
  inputEnded(): void;
  /** The connection is gone. Nothing can be answered. */
  clientGone(): void;
  /** `execDeadline` has passed. */
  execTimeout(): void;
  /** Work that goes on although the exchange may be over; the call counts as in flight until it settles. */
  readonly work: Promise<void> | null;
}

/** One request and its answer. */
export interface Exchange {
  /** What the handler is asked. Whoever routes may put another one in its place. */
  request: RequestHead;
  /** `performance.now()` when the head had been read. */
  readonly startedAt: number;
  /** When its time for execution is over; set by the handler, fires `execTimeout`. */
  readonly execDeadline: Deadline;
  /** Starts the delivery of the body to the handler. */
  readBody(): void;
  pauseBody(): void;
  resumeBody(): void;
  /** An interim answer (1xx) other than 101. */
  interim(status: number, fields: string): void;
  /**
   * Starts the answer. `fields` are whole lines, each with its line end, without those that frame the message.
   * `length`: bytes of the body, CHUNKED when unknown; null writes none of both (the answer has no body by nature,
   * or `fields` has its length).
   */
  head(status: number, fields: string, length: number | null): void;
  /** False when the client has enough for now: `drain` follows. */
  write(piece: Buffer): boolean;
  flush(): void;
  end(): void;
  /** A whole answer in one go. */
  respond(status: number, fields: string, body: string | Buffer): void;
  /** Drops the connection: the only way to say that an answer which has begun will not be completed. */
  destroy(): void;
  /** Gives the connection away (after a 101). */
  detach(): TunnelEnd;
  readonly headSent: boolean;
  /** The status of the answer; 0 until it has begun. */
  readonly status: number;
  /** False while the client takes no more; `drain` follows. */
  readonly writable: boolean;
  /** Called once, when the exchange is over for whatever reason. */
  onOver: (() => void) | null;
}

/** Makes the handler of a request. Called once per request, when its head is complete. */
export type Serve = (exchange: Exchange) => Handler;

/** What the connections of one server have in common. */
export interface ConnectionOptions {
  serve: Serve;
  limits: Limits;
  /** Whether the server is going away, so that answers announce the end of their connection. */
  closing(): boolean;
}
