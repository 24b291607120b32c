import type { Socket } from "node:net";
import { type BodyDecoder, BodyError, decoderFor } from "./body.ts";
import { Deadline } from "./deadline.ts";
import { CHUNKED, HeadError, MAX_HEAD, parseRequest, type RequestHead, UNTIL_CLOSE } from "./head.ts";
import { reasonPhrase } from "./status.ts";
import { SocketWriter } from "./writer.ts";

/** Pipelined bytes kept while an answer is under way; then the socket is not read until it is finished. */
const MAX_AHEAD = 64 * 1024;
/** Unread request body that is still swallowed to keep the connection, as in Go's net/http. */
const MAX_DISCARD = 256 * 1024;
/** Milliseconds that a connection is kept half open, so that the client can read the answer before a reset. */
const LINGER_MS = 500;

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
  /** Gives the socket away (after a 101), with the bytes that came early. */
  detach(): { socket: Socket; early: Buffer };
  readonly headSent: boolean;
  /** The status of the answer; 0 until it has begun. */
  readonly status: number;
  /** False while the client takes no more; `drain` follows. */
  readonly writable: boolean;
  /** Called once, when the exchange is over for whatever reason. */
  onOver: (() => void) | null;
  /** `127.0.0.1:8080->127.0.0.1:50000`: ours, theirs. */
  readonly route: string;
}

/** Makes the handler of a request. Called once per request, when its head is complete. */
export type Serve = (exchange: Exchange) => Handler;

/** Date lines are the same for a second. */
let dateSecond = 0;
let dateText = "";
function dateLine(): string {
  const now = Math.floor(Date.now() / 1000);
  if (now !== dateSecond) {
    dateSecond = now;
    dateText = `Date: ${new Date(now * 1000).toUTCString()}\r\n`;
  }
  return dateText;
}

/**
 * The server's side of one connection: requests one after the other, answers in order.
 *
 *   idle ──head complete──► serving (body in, answer out) ──answer ended──► idle | discarding rest of body | closing
 */
export class ServerConnection implements Exchange {
  readonly #socket: Socket;
  readonly #serve: Serve;
  readonly #limits: Limits;
  readonly #closing: () => boolean;
  readonly #writer: SocketWriter;
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
  #advancing = false;
  #responding = false;
  #chunked = false;
  #closeAfter = false;
  request!: RequestHead;
  startedAt = 0;
  headSent = false;
  status = 0;
  onOver: (() => void) | null = null;

  /** `closing` tells whether the server is going away, so that answers announce the end of their connection. */
  constructor(socket: Socket, serve: Serve, limits: Limits, closing: () => boolean) {
    this.#socket = socket;
    this.#serve = serve;
    this.#limits = limits;
    this.#closing = closing;
    this.#writer = new SocketWriter(socket);
    this.#deadline.set(limits.readTimeoutMs);
    socket.on("data", this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("drain", this.#onDrain);
    socket.on("error", ignore); // "close" follows
    socket.on("close", this.#onClose);
  }

  /** Whether it waits for a request, and so can be closed without harm. */
  get idle(): boolean {
    return !this.#handler && !this.#responding;
  }

  /** Closes it if it is idle; an answer under way announces the close itself. */
  closeIdle(): void {
    if (this.idle && !this.#lingering && !this.#decoder) this.#socket.destroy();
  }

  get route(): string {
    const side = (address = "", port = 0): string => `${address.replace(/^::ffff:/, "")}:${port}`;
    const s = this.#socket;
    return `${side(s.localAddress, s.localPort)}->${side(s.remoteAddress, s.remotePort)}`;
  }

  // --- in ---------------------------------------------------------------------------------------------------------

  readonly #onData = (chunk: Buffer): void => {
    if (this.#lingering) return;
    if (this.idle && !this.#decoder && !this.#pending?.length) this.#deadline.set(this.#limits.readTimeoutMs);
    // Joining copies: only for what is really left over, or large bodies become garbage twice their size.
    this.#pending = this.#pending?.length ? Buffer.concat([this.#pending, chunk]) : chunk;
    this.#advance();
  };

  /** Goes on with what has arrived, as far as it reaches. Never re-entered: finishing an answer only loops on. */
  #advance(): void {
    if (this.#advancing) return;
    this.#advancing = true;
    try {
      while (this.#pending && this.#pending.length > 0 && !this.#socket.destroyed && !this.#lingering)
        if (!(this.#decoder ? this.#advanceBody() : this.#advanceHead())) break;
      this.#handler?.batchEnd();
    } catch (e) {
      this.#reject(e);
    } finally {
      this.#advancing = false;
    }
  }

  /** True when it made progress. */
  #advanceHead(): boolean {
    if (this.#responding) {
      if (this.#pending!.length > MAX_AHEAD) this.#socket.pause();
      return false;
    }
    const bytes = skipEmptyLines(this.#pending!);
    const end = bytes.indexOf("\r\n\r\n", 0, "latin1");
    if ((end < 0 ? bytes.length : end) > MAX_HEAD) throw new HeadError(431, "431 Request Header Fields Too Large");
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
      if (this.#pending!.length > MAX_AHEAD) this.#socket.pause();
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
      this.#deadline.set(Math.max(1, this.startedAt + this.#limits.writeTimeoutMs - performance.now()));
      if (this.#limits.writeTimeoutMs <= 0) this.#deadline.clear();
      this.#handler?.bodyEnd();
    } else this.#becomeIdle();
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
    this.#socket.pause();
  }

  resumeBody(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#resumeInput();
  }

  #resumeInput(): void {
    // What is here goes first, and may pause again: each turn would otherwise take in more than it gives on.
    if (this.#pending && this.#pending.length > 0) this.#advance();
    if (!this.#paused) this.#socket.resume();
    if (this.#inputEnded) this.#inputIsOver();
  }

  readonly #onEnd = (): void => {
    this.#inputEnded = true;
    this.#inputIsOver();
  };

  #inputIsOver(): void {
    if (!this.#responding) this.#finishSocket();
    else if (this.#decoder && !this.#decoder.done) {
      if (this.#delivering && !this.#paused) this.#bodyFailed("unexpected EOF");
    } else this.#handler?.inputEnded();
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
    if (length === CHUNKED && this.request.minor === 0) length = UNTIL_CLOSE;
    this.#chunked = length === CHUNKED && this.request.method !== "HEAD";
    if (length === UNTIL_CLOSE || this.#closing()) this.#closeAfter = true;
    let text = `HTTP/1.1 ${status} ${reasonPhrase(status)}\r\n${fields}`;
    if (!/^date:/im.test(fields)) text += dateLine();
    if (length === CHUNKED) text += "Transfer-Encoding: chunked\r\n";
    else if (length !== null && length >= 0) text += `Content-Length: ${length}\r\n`;
    if (this.#closeAfter && status !== 101) text += "Connection: close\r\n";
    this.#writer.text(`${text}\r\n`);
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
    this.#socket.destroy();
  }

  detach(): { socket: Socket; early: Buffer } {
    const early = this.#pending ?? Buffer.alloc(0);
    this.#writer.flush();
    this.#release();
    this.#deadline.stop();
    this.execDeadline.stop();
    this.#socket.off("data", this.#onData);
    this.#socket.off("end", this.#onEnd);
    this.#socket.off("drain", this.#onDrain);
    this.#socket.off("close", this.#onClose);
    return { socket: this.#socket, early };
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
    if (this.#closeAfter || this.#inputEnded) this.#decoder ? this.#linger() : this.#finishSocket();
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
    this.#deadline.set(this.#limits.readTimeoutMs);
    this.#resumeInput();
  }

  #finishSocket(): void {
    if (!this.#socket.writableEnded) this.#socket.end();
    this.#linger();
  }

  /** Half-closes and reads on for a moment: closing with unread input would reset the answer away (RFC 9112 §9.6). */
  #linger(): void {
    if (this.#lingering) return;
    this.#lingering = true;
    this.#pending = null;
    if (!this.#socket.writableEnded) this.#socket.end();
    if (this.#inputEnded) return;
    this.#socket.resume();
    setTimeout(() => this.#socket.destroy(), LINGER_MS);
  }

  readonly #onDrain = (): void => {
    this.#writer.writable = true;
    this.#handler?.drain();
  };

  // --- ends -------------------------------------------------------------------------------------------------------

  #timeout(): void {
    if (!this.#responding) {
      if (!this.#decoder && this.#pending && this.#pending.length > 0)
        this.#reject(new HeadError(400, "400 Bad Request"));
      else this.#socket.destroy();
    } else if (this.#decoder && !this.#decoder.done) {
      this.#deadline.set(this.#limits.writeTimeoutMs);
      this.#bodyFailed(`read tcp ${this.route}: i/o timeout`);
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

  readonly #onClose = (): void => {
    this.#deadline.stop();
    this.execDeadline.stop();
    const handler = this.#handler;
    this.#release();
    this.#pending = null;
    handler?.clientGone();
  };
}

function ignore(): void {}

/** A client may send an empty line or two before a request (RFC 9112 §2.2). */
function skipEmptyLines(bytes: Buffer): Buffer {
  let at = 0;
  while (bytes[at] === 13 && bytes[at + 1] === 10) at += 2;
  return at > 0 ? bytes.subarray(at) : bytes;
}
