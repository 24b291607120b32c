import { type BodyDecoder, BodyError, decoderFor } from "../../http1/body.ts";
import {
  CHUNKED,
  HeadError,
  hasBareLineFeed,
  MAX_HEAD,
  parseRequest,
  type RequestHead,
  skipEmptyLines,
  UNTIL_CLOSE,
} from "../../http1/head.ts";
import type { Wire, WireListener } from "../wire/wire.ts";
import { answerHead } from "./answer-head.ts";
import { Deadline } from "./deadline.ts";
import type { ConnectionOptions, Exchange, Handler, Limits, Serve } from "./exchange.ts";
import { reasonPhrase } from "./status.ts";
import type { TunnelEnd } from "./tunnel.ts";
import { Writer } from "./writer.ts";

/** Pipelined bytes kept while an answer is under way; then the socket is not read until it is finished. */
const MAX_AHEAD = 64 * 1024;
/** Unread request body that is still swallowed to keep the connection, as in Go's net/http. */
const MAX_DISCARD = 256 * 1024;
/** Milliseconds that a connection is kept half open, so that the client can read the answer before a reset. */
const LINGER_MS = 500;

/**
 * The server's side of one connection: requests one after the other, answers in order.
 *
 *   idle ──head complete──► serving (body in, answer out) ──answer ended──► idle | discarding rest of body | closing
 */
export class ServerConnection implements Exchange, WireListener {
  readonly #wire: Wire;
  readonly #serve: Serve;
  readonly #limits: Limits;
  readonly #closing: () => boolean;
  readonly #closed: () => void;
  readonly #writer: Writer;
  readonly #deadline = new Deadline(() => this.#timeout());
  readonly execDeadline = new Deadline(() => this.#handler?.execTimeout());
  #pending: Buffer | null = null;
  #handler: Handler | null = null;
  #decoder: BodyDecoder | null = null;
  #delivering = false;
  #paused = false;
  #discarded = 0;
  #inputEnded = false;
  #lingering = false;
  #detached = false;
  #advancing = false;
  #responding = false;
  #chunked = false;
  #endsByClose = false;
  #closeAfter = false;
  request!: RequestHead;
  startedAt = 0;
  headSent = false;
  status = 0;
  onOver: (() => void) | null = null;

  /** `closed` is called when the connection is gone, also when it was given away before. */
  constructor(wire: Wire, options: ConnectionOptions, closed: () => void) {
    this.#wire = wire;
    this.#serve = options.serve;
    this.#limits = options.limits;
    this.#closing = options.closing;
    this.#closed = closed;
    this.#writer = new Writer(wire);
    this.#deadline.set(options.limits.readTimeoutMs);
    wire.listener = this;
  }

  /** Whether it waits for a request, and so can be closed without harm. */
  get idle(): boolean {
    return !this.#handler && !this.#responding;
  }

  /** Closes it unless an answer is under way, which announces the close itself. */
  closeIdle(): void {
    if (this.#detached || (this.idle && !this.#lingering && !this.#decoder)) this.#wire.close();
  }

  // --- in ---------------------------------------------------------------------------------------------------------

  wireData(chunk: Buffer): void {
    if (this.#lingering) return;
    if (this.idle && !this.#decoder && !this.#pending?.length && this.#wire.unsent === 0)
      this.#deadline.set(this.#limits.readTimeoutMs);
    // Joining copies: only for what is really left over, or large bodies become garbage twice their size.
    this.#pending = this.#pending?.length ? Buffer.concat([this.#pending, chunk]) : chunk;
    this.#advance();
  }

  /** Goes on with what has arrived, as far as it reaches. Never re-entered: finishing an answer only loops on. */
  #advance(): void {
    if (this.#advancing) return;
    this.#advancing = true;
    try {
      while (this.#pending && this.#pending.length > 0 && !this.#wire.destroyed && !this.#lingering)
        if (!(this.#decoder ? this.#advanceBody() : this.#advanceHead())) break;
      this.#handler?.batchEnd();
    } catch (e) {
      this.#reject(e);
    } finally {
      this.#advancing = false;
    }
    if (this.#inputEnded && !this.#responding) this.#inputIsOver();
  }

  /** True when it made progress. */
  #advanceHead(): boolean {
    if (this.#responding || this.#wire.unsent > 0) {
      if (this.#pending!.length > MAX_AHEAD) this.#wire.pause();
      return false;
    }
    const bytes = skipEmptyLines(this.#pending!);
    const end = bytes.indexOf("\r\n\r\n", 0, "latin1");
    if ((end < 0 ? bytes.length : end) > MAX_HEAD) throw new HeadError(431, "431 Request Header Fields Too Large");
    if (end < 0 && hasBareLineFeed(bytes)) throw new HeadError(400, "400 Bad Request");
    if (end < 0) return false;
    this.#pending = bytes.subarray(end + 4);
    this.#begin(parseRequest(bytes.toString("latin1", 0, end)));
    return true;
  }

  #begin(request: RequestHead): void {
    this.request = request;
    this.startedAt = performance.now();
    this.headSent = false;
    this.status = 0;
    this.#responding = true;
    this.#closeAfter = request.close;
    this.#endsByClose = false;
    this.#decoder = decoderFor(request.bodyLength);
    this.#delivering = false;
    this.#discarded = 0;
    // The write deadline counts from here; until the body is in, the read deadline (set at the start) comes first.
    if (this.#decoder.done) this.#deadline.set(this.#limits.writeTimeoutMs);
    this.#handler = this.#serve(this);
    if (!this.#responding) this.#handler = null; // answered on the spot
  }

  #advanceBody(): boolean {
    const decoder = this.#decoder!;
    if (!this.#delivering && this.#responding) {
      if (this.#pending!.length > MAX_AHEAD) this.#wire.pause();
      return false;
    }
    if (this.#paused) return false;
    const piece = decoder.read(this.#pending!);
    this.#pending = this.#pending!.subarray(decoder.used);
    if (piece) this.#deliver(piece);
    if (this.#decoder === decoder && decoder.done) this.#bodyDone();
    return piece !== null || decoder.done;
  }

  #deliver(piece: Buffer): void {
    if (this.#responding) {
      this.#handler?.bodyData(piece);
      return;
    }
    this.#discarded += piece.length;
    if (this.#discarded > MAX_DISCARD) this.#linger();
  }

  #bodyDone(): void {
    this.#decoder = null;
    if (this.#responding) {
      this.#limitAnswer();
      this.#handler?.bodyEnd();
    } else this.#becomeIdle();
  }

  /** From here on it is the answer that must come in time. */
  #limitAnswer(): void {
    const { writeTimeoutMs } = this.#limits;
    if (writeTimeoutMs <= 0) this.#deadline.clear();
    else this.#deadline.set(Math.max(1, this.startedAt + writeTimeoutMs - performance.now()));
  }

  readBody(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    if (this.request.expectContinue && !this.#decoder?.done) {
      this.#writer.text("HTTP/1.1 100 Continue\r\n\r\n");
      this.#writer.flush();
    }
    // A body of no bytes ends right away, but never from within the call that asks for it.
    if (this.#decoder?.done) {
      queueMicrotask(() => {
        if (this.#decoder?.done && this.#responding) {
          this.#bodyDone();
          this.#handler?.batchEnd();
        }
      });
    } else this.#resumeInput();
  }

  pauseBody(): void {
    if (this.#paused || !this.#decoder) return;
    this.#paused = true;
    this.#wire.pause();
  }

  resumeBody(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#resumeInput();
  }

  #resumeInput(): void {
    // What is here goes first, and may pause again: each turn would otherwise take in more than it gives on.
    if (this.#pending && this.#pending.length > 0) this.#advance();
    if (!this.#paused) this.#wire.resume();
    if (this.#inputEnded) this.#inputIsOver();
  }

  wireEnd(): void {
    this.#inputEnded = true;
    this.#inputIsOver();
  }

  #inputIsOver(): void {
    if (this.#advancing || this.#lingering) return; // what is here goes first
    const left = this.#pending !== null && this.#pending.length > 0;
    if (!this.#responding) {
      if (!left || this.#decoder) this.#finishSocket();
      else if (this.#wire.unsent === 0) this.#reject(new HeadError(400, "400 Bad Request"));
    } else if (this.#decoder && !this.#decoder.done) {
      if (this.#delivering && !this.#paused) this.#bodyFailed("unexpected EOF");
    } else if (!left) this.#handler?.inputEnded();
  }

  #bodyFailed(why: string): void {
    this.#closeAfter = true;
    this.#decoder = null;
    this.#handler?.bodyError(why);
  }

  // --- out --------------------------------------------------------------------------------------------------------

  interim(status: number, fields: string): void {
    if (this.request.minor === 0) return;
    this.#writer.text(`HTTP/1.1 ${status} ${reasonPhrase(status)}\r\n${fields}\r\n`);
    this.#writer.flush();
  }

  get writable(): boolean {
    return this.#writer.writable;
  }

  head(status: number, fields: string, length: number | null): void {
    this.headSent = true;
    this.status = status;
    if (this.#decoder && !this.#delivering) this.#limitAnswer(); // nobody waits for the body
    if (length === CHUNKED && this.request.minor === 0) length = UNTIL_CLOSE;
    this.#endsByClose = length === UNTIL_CLOSE;
    this.#chunked = length === CHUNKED && this.request.method !== "HEAD";
    // A client that was not asked for its body may send it or not: nobody knows what comes next.
    const unasked = this.request.expectContinue && !this.#delivering && this.#decoder?.done === false;
    if (length === UNTIL_CLOSE || unasked || this.#closing()) this.#closeAfter = true;
    this.#writer.text(answerHead(status, fields, length, this.#closeAfter && status !== 101));
  }

  write(piece: Buffer): boolean {
    if (piece.length > 0 && this.request.method !== "HEAD") this.#writer.body(piece, this.#chunked);
    return this.#writer.writable;
  }

  flush(): void {
    this.#writer.flush();
  }

  end(): void {
    if (!this.#responding) return;
    if (this.#deadline.passed) {
      // write_timeout: contracts/watchdog.md §2
      this.destroy();
      return;
    }
    if (this.#chunked) this.#writer.text("0\r\n\r\n");
    this.#writer.flush();
    this.#finish();
  }

  respond(status: number, fields: string, body: string | Buffer): void {
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    this.head(status, fields, bytes.length);
    this.write(bytes);
    this.end();
  }

  destroy(): void {
    // Where the end of the connection is the end of the answer, an orderly one would say that it is complete.
    if (this.#responding && this.#endsByClose) this.#wire.reset();
    else this.#wire.destroy();
  }

  detach(): TunnelEnd {
    const early = this.#pending ?? Buffer.alloc(0);
    this.#writer.flush();
    this.#detached = true;
    const over = this.onOver; // the call lasts as long as what it has become
    this.onOver = null;
    this.#release();
    this.#deadline.stop();
    this.execDeadline.stop();
    const closed = (): void => {
      over?.();
      this.#closed();
    };
    return { wire: this.#wire, early, closed };
  }

  #release(): void {
    this.#handler = null;
    this.#responding = false;
    this.#paused = false;
    this.#chunked = false;
    this.execDeadline.clear();
    const over = this.onOver;
    this.onOver = null;
    over?.();
  }

  /** The answer has been written. */
  #finish(): void {
    this.#release();
    if (this.#closeAfter) this.#decoder ? this.#linger() : this.#finishSocket();
    else if (!this.#decoder || this.#decoder.done) this.#becomeIdle();
    else if (this.request.bodyLength > MAX_DISCARD) this.#linger();
    else {
      this.#deadline.set(this.#limits.readTimeoutMs);
      this.#resumeInput();
    }
  }

  #becomeIdle(): void {
    this.#decoder = null;
    if (this.#closing()) {
      this.#finishSocket();
      return;
    }
    // The last answer's time goes on until it has left.
    if (this.#wire.unsent === 0) this.#deadline.set(this.#limits.readTimeoutMs);
    this.#resumeInput();
  }

  #finishSocket(): void {
    this.#wire.end();
    this.#linger();
  }

  /** Half-closes and reads on for a moment: closing with unread input would reset the answer away (RFC 9112 §9.6). */
  #linger(): void {
    if (this.#lingering) return;
    this.#lingering = true;
    this.#pending = null;
    this.#wire.end();
    if (this.#wire.unsent === 0) this.#deadline.set(LINGER_MS);
    if (!this.#inputEnded) this.#wire.resume();
  }

  wireDrain(): void {
    this.#writer.writable = true;
    if (this.#responding) this.#handler?.drain();
    else if (this.#lingering) this.#deadline.set(LINGER_MS);
    else if (!this.#decoder) this.#becomeIdle();
  }

  // --- ends -------------------------------------------------------------------------------------------------------

  #timeout(): void {
    if (this.#lingering || (!this.#responding && this.#wire.unsent > 0)) this.destroy();
    else if (!this.#responding) {
      if (!this.#decoder && this.#pending && this.#pending.length > 0)
        this.#reject(new HeadError(400, "400 Bad Request"));
      else this.#wire.destroy();
    } else if (this.#decoder && !this.#decoder.done && (this.#delivering || !this.headSent)) {
      this.#deadline.set(this.#limits.writeTimeoutMs);
      this.#bodyFailed(`read tcp ${this.#wire.route}: i/o timeout`);
    } else this.destroy(); // write_timeout; "close" tells the handler
  }

  /** Answers what could not be understood, and closes. */
  #reject(e: unknown): void {
    if (e instanceof BodyError && this.#responding) {
      this.#bodyFailed(e.message);
      return;
    }
    if (!(e instanceof HeadError) || this.#responding) {
      this.destroy();
      if (e instanceof BodyError || e instanceof HeadError) return;
      throw e;
    }
    const fields = "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
    this.#writer.text(`HTTP/1.1 ${e.status} ${reasonPhrase(e.status)}\r\n${fields}\r\n${e.message}`);
    this.#writer.flush();
    this.#finishSocket();
  }

  wireClose(): void {
    this.#deadline.stop();
    this.execDeadline.stop();
    const handler = this.#handler;
    this.#release();
    this.#pending = null;
    handler?.clientGone();
    this.#closed();
  }
}
