import { type BodyDecoder, BodyError, decoderFor } from "../../http1/body.ts";
import { HeadError, MAX_HEAD, parseResponse, type ResponseHead, UNTIL_CLOSE } from "../../http1/head.ts";
import { connect } from "../wire/network.ts";
import type { Address, Wire, WireListener } from "../wire/wire.ts";
import type { TunnelEnd } from "./tunnel.ts";
import { Writer } from "./writer.ts";

/** What receives an answer. After `end` or `failed` the connection is not the call's any more. */
export interface Call {
  /** A head other than an interim one; `101` when the protocol changes. */
  head(head: ResponseHead): void;
  interim(head: ResponseHead): void;
  data(piece: Buffer): void;
  end(): void;
  /** Everything that arrived together has been delivered. */
  answerBatchEnd(): void;
  /** The upstream takes bytes again. */
  upstreamDrain(): void;
  failed(error: Error): void;
}

/** Milliseconds that an unused connection is kept: short, so that an upstream's own idle limit hardly ever wins. */
const IDLE_MS = 500;
/** Unused connections kept. Both numbers are the reference's (contracts/watchdog.md §3.4). */
const MAX_IDLE = 100;

/** Where an upstream is; with `secure` its certificate must be valid for `host`. */
export interface UpstreamTarget {
  host: string;
  port: number;
  secure: boolean;
}

/** Connections to one upstream that wait for work, the most recently used first. */
export class UpstreamPool {
  readonly #target: UpstreamTarget;
  readonly #idle: UpstreamConnection[] = [];
  #sweep: NodeJS.Timeout | null = null;
  host: string;

  /** `host`: the address that is connected to. */
  constructor(host: string, target: UpstreamTarget) {
    this.host = host;
    this.#target = target;
  }

  /** A connection that has served before, or null. */
  take(): UpstreamConnection | null {
    for (let c = this.#idle.pop(); c; c = this.#idle.pop()) {
      if (!c.dead && performance.now() - c.idleSince < IDLE_MS) return c;
      c.destroy();
    }
    return null;
  }

  /** A new one. It may be written to at once; a failure to connect is told to its call. */
  open(): UpstreamConnection {
    const { host, port, secure } = this.#target;
    return new UpstreamConnection({ host: this.host, port, ...(secure && { tlsName: host }) }, this);
  }

  /** Takes back a connection whose exchange is complete. */
  giveBack(connection: UpstreamConnection): void {
    connection.idleSince = performance.now();
    if (this.#idle.length >= MAX_IDLE) {
      connection.destroy();
      return;
    }
    this.#idle.push(connection);
    this.#sweep ??= setInterval(() => this.#closeOld(), IDLE_MS).unref();
  }

  remove(connection: UpstreamConnection): void {
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
  }

  #closeOld(): void {
    const oldest = performance.now() - IDLE_MS;
    while (this.#idle.length > 0 && this.#idle[0]!.idleSince < oldest) this.#idle.shift()!.destroy();
    if (this.#idle.length > 0 || !this.#sweep) return;
    clearInterval(this.#sweep);
    this.#sweep = null;
  }
}

/** The client's side of one connection: one call at a time, no pipelining. */
export class UpstreamConnection implements WireListener {
  readonly #wire: Wire;
  readonly #pool: UpstreamPool;
  readonly writer: Writer;
  #call: Call | null = null;
  #method = "";
  #pending: Buffer | null = null;
  #head: ResponseHead | null = null;
  #decoder: BodyDecoder | null = null;
  #requestDone = false;
  #paused = false;
  #ended = false;
  #delivering = false;
  dead = false;
  /** Has served a call before: a failure may mean no more than that its idle time was over. */
  reused = false;
  /** Something of the present answer has arrived. */
  answered = false;
  idleSince = 0;

  constructor(address: Address, pool: UpstreamPool) {
    this.#pool = pool;
    this.#wire = connect(address, this);
    this.writer = new Writer(this.#wire);
  }

  /** Begins a call by queueing the head of its request; body and `flush` go through `writer`. */
  begin(call: Call, method: string, head: string): void {
    this.#call = call;
    this.#method = method;
    this.#head = null;
    this.#decoder = null;
    this.#requestDone = false;
    this.answered = false;
    this.writer.text(head);
  }

  /** The request has been written as a whole. */
  requestDone(): void {
    this.#requestDone = true;
  }

  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#wire.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#wire.resume();
    this.#deliver();
    if (this.#ended) this.#inputIsOver();
  }

  /** Drops connection and call; the call hears nothing any more. */
  destroy(): void {
    this.dead = true;
    this.#call = null;
    this.#wire.destroy();
  }

  /** Gives the connection away after a 101. */
  detach(): TunnelEnd {
    const early = this.#pending ?? Buffer.alloc(0);
    this.#pending = null;
    this.#call = null;
    this.dead = true;
    return { wire: this.#wire, early, closed() {} };
  }

  wireData(chunk: Buffer): void {
    if (!this.#call) {
      this.#fail(new Error("unsolicited response"));
      return;
    }
    this.answered = true;
    this.#pending = this.#pending ? Buffer.concat([this.#pending, chunk]) : chunk;
    this.#deliver();
  }

  #deliver(): void {
    if (this.#delivering || !this.#pending) return;
    this.#delivering = true;
    const call = this.#call;
    try {
      while (this.#call && this.#pending && !this.#paused && this.#step());
    } catch (e) {
      this.#fail(e as Error);
    } finally {
      this.#delivering = false;
    }
    if (this.#call === call) call?.answerBatchEnd();
  }

  /** One head or one piece of body; false when more bytes are needed. */
  #step(): boolean {
    if (!this.#head) return this.#readHead();
    const decoder = this.#decoder!;
    const piece = decoder.read(this.#pending!);
    const rest = this.#pending!.subarray(decoder.used);
    this.#pending = rest.length > 0 ? rest : null;
    if (piece) this.#call!.data(piece);
    if (decoder.done && this.#call) this.#complete();
    return piece !== null;
  }

  #readHead(): boolean {
    const bytes = this.#pending!;
    const end = bytes.indexOf("\r\n\r\n", 0, "latin1");
    if (end < 0 && bytes.length > MAX_HEAD) throw new HeadError(502, "response head too long");
    if (end < 0) return false;
    const head = parseResponse(bytes.toString("latin1", 0, end), this.#method);
    const rest = bytes.subarray(end + 4);
    this.#pending = rest.length > 0 ? rest : null;
    if (head.status < 200 && head.status !== 101) {
      this.#call!.interim(head);
      return true;
    }
    this.#head = head;
    this.#decoder = decoderFor(head.bodyLength);
    this.#call!.head(head);
    if (this.#call && this.#decoder.done && head.status !== 101) this.#complete();
    return true;
  }

  #complete(): void {
    const call = this.#call!;
    this.#call = null;
    // Bytes after the end, or a request that has not left as a whole: nobody could use this connection again.
    const reusable = !this.#head!.close && this.#requestDone && !this.#pending && !this.#ended;
    this.reused = true;
    if (reusable) this.#pool.giveBack(this);
    else this.destroy();
    call.end();
  }

  #fail(error: Error): void {
    const call = this.#call;
    this.destroy();
    call?.failed(error);
  }

  wireEnd(): void {
    this.#ended = true;
    if (!this.#paused) this.#inputIsOver();
  }

  #inputIsOver(): void {
    if (!this.#call) {
      this.destroy();
      return;
    }
    if (this.#head?.bodyLength === UNTIL_CLOSE && !this.#pending) this.#complete();
    else this.#fail(new BodyError(this.answered ? "unexpected EOF" : "EOF"));
  }

  wireDrain(): void {
    this.writer.writable = true;
    this.#call?.upstreamDrain();
  }

  wireClose(error: Error | null): void {
    this.#pool.remove(this);
    if (this.#call) this.#fail(error ?? new Error("connection closed"));
    this.dead = true;
  }
}
