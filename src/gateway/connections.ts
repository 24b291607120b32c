import { type IncomingMessage, type ServerResponse, STATUS_CODES } from "node:http";
import { Server as HttpsServer } from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as delay, setImmediate as otherEvents } from "node:timers/promises";
import { AppError, systemCode } from "../base/errors.ts";
import { linger, lingerAtEnd } from "../invoke/linger.ts";
import { headFault, malformed } from "./head.ts";
import type { Server } from "./listener.ts";

export interface ConnectionLimits {
  readonly headersTimeoutMs: number;
  /** For a request's body to bring something. */
  readonly bodyTimeoutMs: number;
  /** For a caller to take something of an answer. */
  readonly sendTimeoutMs: number;
  readonly maxHeaders: number;
  readonly maxHeaderBytes: number;
}

type Serve = (req: IncomingMessage, res: ServerResponse) => void;

/** How long a refused caller may go on sending, so that its answer is not lost in a reset: ms. */
const lingerMs = 2000;
/**
 * For so long must nothing pass on a connection before a gateway that drains closes it, ms: a request that is on its
 * way meanwhile is answered.
 */
const quietMs = 250;
const lookMs = 25;

/** A caller's connection. Only the newest request counts: what came before it has been read to its end. */
interface Connection {
  readonly socket: Socket;
  /** The response to the newest request; null when it is known to be over. */
  last: ServerResponse | null;
  /** Requests that are served as soon as what has come is read. */
  deferred: number;
  /** The newest request with a body; null when it is known to be whole. */
  upload: IncomingMessage | null;
  /** Bytes that had come, and since when no more (monotonic ms), as the last look found them. */
  received: number;
  receivedAt: number;
  /** Bytes that had been taken, and since when no more, while others wait. */
  taken: number;
  takenAt: number;
  /** Nothing that comes any more is looked at. When it was refused, ms; 0 when it was not. */
  refusedAt: number;
  /** While the gateway drains: bytes that had passed both ways, and since when no more (monotonic ms). */
  passed: number;
  quietSince: number;
}

const connection = Symbol("connection");
type Tracked = Socket & { [connection]?: Connection };

/**
 * Watches over the connections of callers: what is malformed or takes too long is answered with an error of the
 * catalogue, in its turn behind the answers that are still due, and nothing more is read from that connection.
 *
 * Timeouts have no timer of their own: a look at all connections from time to time costs the data path nothing.
 */
export class Connections implements Disposable {
  readonly #limits: ConnectionLimits;
  readonly #all = new Set<Connection>();
  readonly #looking: NodeJS.Timeout;
  #drains = false;

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
    const shortest = Math.min(limits.bodyTimeoutMs, limits.sendTimeoutMs);
    this.#looking = setInterval(() => this.#look(performance.now()), Math.min(1000, shortest / 4)).unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#looking);
  }

  watch(server: Server): void {
    server.on(server instanceof HttpsServer ? "secureConnection" : "connection", (socket) => this.#opened(socket));
    server.on("clientError", (error, socket) => this.#failed(error, socket));
    server.on("connect", (_, socket) => this.refuse(socket, new AppError("METHOD_NOT_ALLOWED", [])));
  }

  /** Whether every answer is the last one of its connection. */
  get drains(): boolean {
    return this.#drains;
  }

  /**
   * Ends every connection, when its answer has gone out or nobody asks for anything on it; resolves when none is left
   * or `ms` have passed. Calls `refuse` when no new ones are to come: not at once, since those that keep coming are
   * answered sooner here than by whoever follows.
   */
  async drain(ms: number, refuse: () => void): Promise<void> {
    this.#drains = true;
    const begin = performance.now();
    for (const c of this.#all) {
      c.quietSince = begin;
      if (c.last !== null && !c.last.headersSent) endWith(c.last, c.socket);
    }
    let refuses = false;
    for (let now = begin; now - begin < ms; now = performance.now()) {
      if (!refuses && (this.#all.size === 0 || now - begin >= quietMs)) {
        refuses = true;
        refuse();
      }
      for (const c of this.#all) this.#endWhenQuiet(c, now);
      if (refuses && this.#all.size === 0) return;
      await delay(lookMs);
      await otherEvents(); // a request that the kernel has already is seen first
    }
  }

  #endWhenQuiet(c: Connection, now: number): void {
    if (c.socket.writableEnded) return;
    const passed = c.socket.bytesRead + c.socket.bytesWritten;
    const isBusy = c.deferred > 0 || isArriving(c) || (c.last !== null && !c.last.writableFinished);
    if (isBusy || passed !== c.passed) {
      c.passed = passed;
      c.quietSince = now;
    } else if (now - c.quietSince >= quietMs) linger(c.socket);
  }

  /**
   * Has a request served unless it is refused or came behind one that was. One with chunks waits until what the parser
   * was given is read: it finds some faults of the head, and those of a body that came along, only behind the head.
   */
  admit(req: IncomingMessage, res: ServerResponse, serve: Serve): void {
    if (!this.accepts(req)) return;
    const c = (req.socket as Tracked)[connection]!;
    c.last = res;
    if (this.#drains) endWith(res, c.socket);
    const { "transfer-encoding": coding, "content-length": length = "0" } = req.headers;
    if (coding !== undefined || length !== "0") {
      c.upload = req;
      c.received = -1;
    }
    if (coding === undefined && c.deferred === 0) {
      serve(req, res);
      return;
    }
    c.deferred++;
    process.nextTick(serveUnlessRefused, c, req, res, serve);
  }

  /** Whether a request may be served. If not it has been refused, or came behind one that was. Also for upgrades. */
  accepts(req: IncomingMessage): boolean {
    const c = (req.socket as Tracked)[connection]!;
    if (c.refusedAt > 0) return false;
    const fault = headFault(req);
    if (fault === null) return true;
    req.resume();
    this.refuse(req.socket, fault);
    return false;
  }

  /** Answers with an error when all answers that are due have gone out, and closes. */
  refuse(socket: Duplex, error: AppError): void {
    const c = (socket as Tracked)[connection]!;
    if (c.refusedAt > 0) return;
    c.refusedAt = performance.now();
    const due = c.last !== null && !c.last.writableFinished ? c.last : null;
    const answer = answerTo(error);
    const end = () => {
      c.refusedAt = performance.now();
      c.socket.end(answer);
    };
    if (due === null) end();
    else if (!isArriving(c)) due.once("finish", end);
    else {
      // it is this very request that fails, half-way; an answer that has begun can only be cut
      if (due.socket !== null && !due.headersSent) c.socket.write(answer);
      c.socket.destroySoon();
    }
  }

  #opened(socket: Socket): void {
    const progress = { received: -1, receivedAt: 0, taken: -1, takenAt: 0 };
    const quiet = { passed: 0, quietSince: performance.now() };
    const c: Connection = { socket, last: null, deferred: 0, upload: null, ...progress, refusedAt: 0, ...quiet };
    (socket as Tracked)[connection] = c;
    this.#all.add(c);
    socket.once("close", () => this.#all.delete(c));
  }

  /** The parser gives up, or the socket did. */
  #failed(error: Error, socket: Duplex): void {
    const c = (socket as Tracked)[connection];
    const fault = this.#faultOf(error);
    if (c === undefined || fault === null) socket.destroy();
    else this.refuse(socket, fault);
  }

  /** Null when there is nobody left to tell. */
  #faultOf(error: Error & { reason?: unknown }): AppError | null {
    const code = systemCode(error) ?? "";
    const { headersTimeoutMs, maxHeaderBytes, maxHeaders } = this.#limits;
    switch (code) {
      case "HPE_HEADER_OVERFLOW":
        return new AppError("HEADERS_TOO_LARGE", [maxHeaderBytes, maxHeaders]);
      case "ERR_HTTP_REQUEST_TIMEOUT":
        return new AppError("REQUEST_TOO_SLOW", [
          "the head of the request did not come",
          headersTimeoutMs,
          "gateway.headers_timeout",
        ]);
      case "HPE_PAUSED_H2_UPGRADE":
        return new AppError("HTTP_VERSION", []);
      case "HPE_INVALID_VERSION": // also for a line that does not end behind it
        if (error.reason === "Invalid HTTP version") return new AppError("HTTP_VERSION", []);
    }
    return code.startsWith("HPE_") ? malformed(typeof error.reason === "string" ? error.reason : code) : null;
  }

  #look(now: number): void {
    const { bodyTimeoutMs, sendTimeoutMs } = this.#limits;
    for (const c of this.#all) {
      if (c.last?.writableFinished) c.last = null;
      if (c.upload !== null && !isArriving(c)) c.upload = null;
      if (c.upload !== null && now - silentSince(c, c.upload, now) >= bodyTimeoutMs)
        this.refuse(
          c.socket,
          new AppError("REQUEST_TOO_SLOW", [
            "the body of the request brought nothing",
            bodyTimeoutMs,
            "gateway.body_timeout",
          ]),
        );
      const isStuck = c.socket.writableLength > 0 && now - stuckSince(c, now) >= sendTimeoutMs;
      if (isStuck || (c.refusedAt > 0 && c.socket.writableEnded && now - c.refusedAt >= lingerMs)) c.socket.destroy();
    }
  }
}

/**
 * Since when the caller owes us bytes of a body: not while nobody reads it yet (the function wakes up, or the caller
 * has not been told to go on), the function does not take what has come, or answers already.
 */
function silentSince(c: Connection, upload: IncomingMessage, now: number): number {
  const { bytesRead } = c.socket;
  const waitsForOthers = upload.readableFlowing === null || upload.readableLength > 0 || c.last?.headersSent;
  if (bytesRead !== c.received || waitsForOthers) {
    c.received = bytesRead;
    c.receivedAt = now;
  }
  return c.receivedAt;
}

/** Makes an answer the last one of its connection. */
function endWith(answer: ServerResponse, socket: Socket): void {
  answer.shouldKeepAlive = false;
  lingerAtEnd(socket);
}

function serveUnlessRefused(c: Connection, req: IncomingMessage, res: ServerResponse, serve: Serve): void {
  c.deferred--;
  if (c.refusedAt === 0) serve(req, res);
}

/** Whether the newest request has a body that has not come to its end. */
function isArriving(c: Connection): boolean {
  return c.upload !== null && !c.upload.complete && !c.upload.destroyed;
}

/** Since when the caller has taken none of the bytes that wait for it. */
function stuckSince(c: Connection, now: number): number {
  const taken = c.socket.bytesWritten - c.socket.writableLength;
  if (taken !== c.taken) {
    c.taken = taken;
    c.takenAt = now;
  }
  return c.takenAt;
}

/** On the wire, as the response of a request may not exist, or belong to somebody who has begun to use it. */
function answerTo(error: AppError): string {
  const body = `${error.message}\n`;
  return [
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}`,
    "Connection: close",
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "X-Content-Type-Options: nosniff",
    "X-OpenFaaS-Internal: napd",
    "",
    body,
  ].join("\r\n");
}
