import { connect, type Socket } from "node:net";
import { type BodyDecoder, decoderFor } from "../http1/body.ts";
import { MAX_HEAD, parseResponse, type ResponseHead, UNTIL_CLOSE } from "../http1/head.ts";
import type { Pool } from "./pool.ts";

/** What a connection tells the exchange that uses it. After `end`, `failed` or a `detach` it tells nothing more. */
export interface Exchange {
  /** A new connection stands; one that was used before says nothing. Until then not a byte has been sent. */
  connected(): void;
  /** The final head, or one with status 101: then whoever asked for it takes the socket with `detach`. */
  head(head: ResponseHead): void;
  /** A piece of the body, which is there until the next `batchEnd` or `end`: whoever keeps it longer copies it. */
  data(piece: Buffer): void;
  end(): void;
  /** Everything that arrived together has been told. */
  batchEnd(): void;
  /** The function takes bytes again. */
  drain(): void;
  failed(error: Error): void;
}

/** An answer that is not what HTTP/1.1 allows, or not all of it. */
export class AnswerError extends Error {}

/** A socket after a change of protocol, with the bytes that came behind the head. */
export interface RawEnd {
  readonly socket: Socket;
  readonly early: Buffer;
}

/**
 * What all connections read into, one after the other: a read and what comes of it is one turn. A buffer of its own for
 * every read, which is what sockets do by themselves, costs more than the copy of what is kept.
 */
const shared = Buffer.allocUnsafeSlow(64 * 1024);

/**
 * The client's side of one HTTP/1.1 connection: one exchange at a time, no pipelining. The request's head leaves at
 * the end of the turn at the latest, with the body's beginning if that is there by then.
 */
export class Connection {
  readonly #socket: Socket;
  readonly #pool: Pool;
  #exchange: Exchange | null = null;
  #method = "";
  #head: ResponseHead | null = null;
  #decoder: BodyDecoder | null = null;
  /** Bytes that are not enough to go on with. */
  #rest: Buffer | null = null;
  #requestDone = false;
  /** The connection stands. */
  isConnected = false;
  /** Has served before: a failure may mean no more than that the function had closed it. */
  isReused = false;
  /** Something of the present answer has come. */
  isAnswered = false;
  /** When it was given back, on the clock of `performance.now()`. */
  idleSince = 0;

  /** `isRaw`: the socket can be given away, with `detach`. */
  constructor(host: string, port: number, pool: Pool, isRaw: boolean) {
    this.#pool = pool;
    const onRead = (length: number) => {
      this.#onData(shared.subarray(0, length));
      return true;
    };
    // half-open: after a change of protocol each direction ends by itself
    const socket = connect({
      ...{ host, port, noDelay: true, allowHalfOpen: isRaw },
      ...(!isRaw && { onread: { buffer: shared, callback: onRead } }),
    });
    this.#socket = socket;
    socket.on("connect", () => {
      this.isConnected = true;
      this.#exchange?.connected();
    });
    if (isRaw) socket.on("data", this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("drain", this.#onDrain);
    socket.on("error", this.#onError);
    socket.on("close", this.#onClose);
  }

  /** Sends the head of a request, its final empty line included; one byte per character. */
  begin(exchange: Exchange, method: string, head: string, hasBody: boolean): void {
    this.#exchange = exchange;
    this.#method = method;
    this.#head = null;
    this.#decoder = null;
    this.isAnswered = false;
    this.#requestDone = !hasBody;
    if (!hasBody) {
      this.#socket.write(head, "latin1");
      return;
    }
    this.#socket.cork();
    this.#socket.write(head, "latin1");
    process.nextTick(uncork, this.#socket);
  }

  /** Sends a piece of the body as it is; false when the function has enough for now: `drain` follows. */
  write(piece: Buffer): boolean {
    return this.#socket.write(piece);
  }

  /** Sends a piece as one chunk (RFC 9112 §7.1). */
  writeChunk(piece: Buffer): boolean {
    const socket = this.#socket;
    socket.cork();
    socket.write(`${piece.length.toString(16)}\r\n`, "latin1");
    socket.write(piece);
    const room = socket.write("\r\n", "latin1");
    socket.uncork();
    return room;
  }

  /** The body is complete; `isChunked`: and says so itself. */
  endBody(isChunked: boolean): void {
    this.#requestDone = true;
    if (isChunked) this.#socket.write("0\r\n\r\n", "latin1");
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Drops the connection; the exchange hears nothing more. */
  destroy(): void {
    this.#exchange = null;
    this.#socket.destroy();
  }

  /** Drops the connection and tells the exchange. */
  cut(error: Error): void {
    this.#fail(error);
  }

  /** Gives the socket away, paused. */
  detach(): RawEnd {
    const socket = this.#socket;
    const early = this.#rest ?? Buffer.alloc(0);
    this.#exchange = null;
    this.#rest = null;
    socket.pause();
    socket.off("data", this.#onData);
    socket.off("end", this.#onEnd);
    socket.off("drain", this.#onDrain);
    return { socket, early };
  }

  readonly #onData = (chunk: Buffer): void => {
    const exchange = this.#exchange;
    if (!exchange) {
      this.#socket.destroy(); // an answer to nothing: whatever follows on it would be taken for another's
      return;
    }
    this.isAnswered = true;
    let bytes: Buffer | null = this.#rest ? Buffer.concat([this.#rest, chunk]) : chunk;
    this.#rest = null;
    try {
      while (bytes && this.#exchange === exchange) bytes = this.#take(bytes, exchange);
    } catch (e) {
      this.#fail(e as Error);
      return;
    }
    if (this.#exchange === exchange) exchange.batchEnd();
  };

  /** Takes a head or a piece of body from `bytes` and returns what is left to look at; null when more must come. */
  #take(bytes: Buffer, exchange: Exchange): Buffer | null {
    if (!this.#head) return this.#takeHead(bytes, exchange);
    const decoder = this.#decoder!;
    const piece = decoder.read(bytes);
    const left = decoder.used < bytes.length ? bytes.subarray(decoder.used) : null;
    if (piece) exchange.data(piece);
    if (decoder.done) {
      this.#complete(exchange, left === null);
      return null;
    }
    if (piece) return left;
    this.#rest = left && Buffer.from(left);
    return null;
  }

  #takeHead(bytes: Buffer, exchange: Exchange): Buffer | null {
    const end = bytes.indexOf("\r\n\r\n", 0, "latin1");
    if (end > MAX_HEAD || (end < 0 && bytes.length > MAX_HEAD)) throw new AnswerError("the head is too long");
    if (end < 0) {
      this.#rest = Buffer.from(bytes);
      return null;
    }
    const head = parseResponse(bytes.toString("latin1", 0, end), this.#method);
    const left = end + 4 < bytes.length ? bytes.subarray(end + 4) : null;
    if (head.status === 101) {
      this.#rest = left && Buffer.from(left);
      exchange.head(head);
      if (this.#exchange === exchange) throw new AnswerError("it changed the protocol without being asked to");
      return null;
    }
    if (head.status < 200) return left; // interim answers are not passed on: contracts/api.md §1.4
    this.#head = head;
    const decoder = decoderFor(head.bodyLength);
    this.#decoder = decoder;
    exchange.head(head);
    if (!decoder.done) return left;
    if (this.#exchange === exchange) this.#complete(exchange, left === null);
    return null;
  }

  /** `isClean`: nothing has come behind the answer. */
  #complete(exchange: Exchange, isClean: boolean): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = null;
    // a request that has not left as a whole: nobody could use the connection again
    if (isClean && this.#requestDone && !this.#head!.close) {
      this.isReused = true;
      this.#pool.giveBack(this);
    } else this.#socket.destroy();
    exchange.end();
  }

  #fail(error: Error): void {
    const exchange = this.#exchange;
    this.destroy();
    exchange?.failed(error);
  }

  readonly #onEnd = (): void => {
    const exchange = this.#exchange;
    if (!exchange) this.#socket.destroy();
    else if (this.#head?.bodyLength === UNTIL_CLOSE) this.#complete(exchange, true);
    else this.#fail(new AnswerError("it closed the connection before its answer was complete"));
  };

  readonly #onDrain = (): void => this.#exchange?.drain();

  readonly #onError = (error: Error): void => this.#fail(error);

  readonly #onClose = (): void => {
    this.#pool.remove(this);
    this.#fail(new AnswerError("it closed the connection before its answer was complete"));
  };
}

function uncork(socket: Socket): void {
  socket.uncork();
}
