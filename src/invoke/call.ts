import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError, messageOf, systemCode } from "../base/errors.ts";
import type { Waiter } from "../functions/admission.ts";
import type { ReplicaIdentity } from "../functions/backend.ts";
import type { Replica } from "../functions/replica.ts";
import type { Entry } from "../functions/table.ts";
import type { ResponseHead } from "../http1/head.ts";
import type { Connection, Exchange } from "../upstream/connection.ts";
import type { Deadlines, Expiring } from "./deadlines.ts";
import { type CallHeaders, requestHead, responseHeaders } from "./headers.ts";
import { linger, lingerAtEnd } from "./linger.ts";
import { refuse } from "./refuse.ts";
import type { Upgrading } from "./upgrading.ts";

/** What all calls share. */
export interface CallServices {
  readonly deadlines: Deadlines;
  readonly thaw: (replica: ReplicaIdentity) => Promise<void>;
  /** Ms that an upgraded connection may be silent. */
  readonly tunnelIdleMs: number;
}

/** Methods that do no harm when the function gets them twice: RFC 9110 §9.2.2. */
const idempotent = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
/** Bytes of a body that are kept for a second attempt. */
const maxKept = 64 * 1024;
/** Bytes of an unread body that are swallowed to keep the caller's connection; beyond, it is closed. */
const maxUnread = 256 * 1024;
/** Bytes of an answer's body that are sent as text. */
const maxText = 16 * 1024;
/** Replicas that may refuse one call, or be lost while it waits for them. */
const maxAttempts = 5;
/** Ms that a call which was cut waits for the news why. */
const newsMs = 250;

/**
 * One call, from its arrival until the answer is closed:
 *
 *   waits for its turn ─► waits for a replica to be awake ─► sent ─► answered ─► ended
 *                              ▲       refused, nothing sent │
 *                              └──────────────────────────────┘
 *
 * It streams both ways with back-pressure and aborts, and owns what it is counted in: the function's calls, its place
 * among those that run, and its replica's requests in flight. All three are given back in `#end`, and nowhere else but
 * where a replica refuses it.
 */
export class Call implements Exchange, Expiring, Waiter {
  readonly deadline: number;
  slot = -1;
  readonly #o: CallServices;
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  readonly #entry: Entry;
  readonly #target: string;
  readonly #ids: CallHeaders;
  readonly #upgrade: Upgrading | null;
  readonly #begin = performance.now();
  readonly #hasBody: boolean;
  #place: "none" | "waiting" | "running" = "none";
  #replica: Replica | null = null;
  #connection: Connection | null = null;
  #attempts = 0;
  #bodyBegun = false;
  #bodyDone = false;
  #bodyBytes = 0;
  /** What was sent of the body, as long as it may have to be sent again. */
  #kept: Buffer[] | null = null;
  #isRepeated = false;
  /** A piece of the answer that waits for what arrived along with it. */
  #held: Buffer | null = null;
  #isFlushed = false;
  #drains = false;
  #hasSwitched = false;
  /** It has been refused, or has ended: nothing more is to be sent anywhere. */
  #isOver = false;
  #ended = false;

  constructor(
    services: CallServices,
    req: IncomingMessage,
    res: ServerResponse,
    entry: Entry,
    target: string,
    ids: CallHeaders,
    upgrade: Upgrading | null,
  ) {
    this.#o = services;
    this.#req = req;
    this.#res = res;
    this.#entry = entry;
    this.#target = target;
    this.#ids = ids;
    this.#upgrade = upgrade;
    this.deadline = this.#begin + entry.policy.timeoutMs;
    const length = req.headers["content-length"];
    this.#hasBody = req.headers["transfer-encoding"] !== undefined || (length !== undefined && length !== "0");
  }

  /** Counts it in and sends it on its way. */
  start(): void {
    const { limits } = this.#entry.policy;
    this.#entry.calls.begin();
    this.#o.deadlines.add(this);
    this.#res.once("close", () => this.#end());
    // behind another answer on its connection (pipelining), an answer that is not begun is not told of the close
    if (this.#res.socket === null) this.#req.socket.setMaxListeners(0).once("close", () => this.#end());
    if (limits.maxBodyBytes > 0 && Number(this.#req.headers["content-length"]) > limits.maxBodyBytes) {
      this.#fail(new AppError("CALL_TOO_LARGE", [this.#entry.key, limits.maxBodyBytes]));
      return;
    }
    const place = this.#entry.admission.enter(this, limits);
    if (place === "refused") {
      const { running, waiting } = this.#entry.admission;
      this.#fail(new AppError("CALLS_LIMITED", [this.#entry.key, running, waiting]), { "Retry-After": "1" });
      return;
    }
    this.#place = place;
    if (place === "running") this.#dispatch();
  }

  admitted(): void {
    this.#place = "running";
    this.#dispatch();
  }

  // --- to a replica -------------------------------------------------------------------------------------------------

  #dispatch(): void {
    const replica = this.#entry.pick();
    if (replica?.state === "ready") {
      this.#take(replica);
      this.#send(this.#connect(replica));
    } else void this.#awaitReplica();
  }

  /** The slow way: nobody is awake. */
  async #awaitReplica(): Promise<void> {
    try {
      let replica = this.#entry.pick();
      if (!replica) {
        await this.#entry.wake();
        replica = this.#entry.pick();
      }
      if (this.#isOver) return;
      if (!replica) throw new AppError("FUNCTION_UNAVAILABLE", [this.#entry.key, "its replica was lost as it woke up"]);
      // counted in before it is woken, so that nobody freezes it between wake-up and dispatch
      this.#take(replica);
      if (!(await this.#awake(replica)) || this.#isOver) return;
      this.#send(this.#connect(replica));
    } catch (e) {
      this.#fail(
        e instanceof AppError ? e : new AppError("FUNCTION_UNAVAILABLE", [this.#entry.key, messageOf(e)], { cause: e }),
      );
    }
  }

  /** False when another replica is to be looked for. */
  async #awake(replica: Replica): Promise<boolean> {
    let error: unknown;
    try {
      await replica.ensureAwake(this.#o.thaw);
      if (replica.state !== "failed") return true; // one that drains still serves those it has been given
    } catch (e) {
      error = e;
      this.#entry.doubt(replica);
    }
    if (this.#isOver) return false;
    this.#giveBack();
    const why = error ? messageOf(error) : (replica.lostBecause ?? "its replica was lost");
    if (++this.#attempts >= maxAttempts)
      throw new AppError("FUNCTION_UNAVAILABLE", [this.#entry.key, `it could not be woken: ${why}`], { cause: error });
    this.#dispatch();
    return false;
  }

  #take(replica: Replica): void {
    this.#replica = replica;
    replica.inFlight++;
  }

  #giveBack(): void {
    const replica = this.#replica;
    this.#replica = null;
    replica?.release();
  }

  #connect(replica: Replica): Connection {
    return this.#upgrade ? replica.pool!.open(true) : replica.pool!.take();
  }

  #send(connection: Connection): void {
    const { socket, method } = this.#req;
    this.#connection = connection;
    const head = requestHead(
      this.#req,
      this.#target,
      this.#replica!.pool!.authority,
      this.#ids,
      `${socket.remoteAddress}:${socket.remotePort}`,
      this.#upgrade?.protocol ?? null,
    );
    connection.begin(this, method!, head, this.#hasBody);
    if (this.#hasBody && connection.isReused) this.#sendBody();
  }

  // --- the request's body -------------------------------------------------------------------------------------------

  /** Not before the connection stands: what is sent into one that is then refused could not be sent again. */
  connected(): void {
    if (this.#hasBody) this.#sendBody();
  }

  #sendBody(): void {
    const req = this.#req;
    if (this.#bodyBegun) {
      for (const piece of this.#kept ?? []) this.#write(piece);
      this.#kept = null;
      if (this.#bodyDone) this.#connection!.endBody(this.#isChunked);
      else req.resume();
      return;
    }
    this.#bodyBegun = true;
    if (this.#connection!.isReused && idempotent.has(req.method!)) this.#kept = [];
    if (req.headers.expect !== undefined && req.httpVersionMinor > 0) this.#res.writeContinue();
    req.on("data", (piece: Buffer) => this.#piece(piece));
    req.on("end", () => {
      this.#bodyDone = true;
      this.#connection?.endBody(this.#isChunked);
    });
  }

  get #isChunked(): boolean {
    return this.#req.headers["transfer-encoding"] !== undefined;
  }

  #piece(piece: Buffer): void {
    if (!this.#connection) return; // it is over; what still comes is swallowed
    this.#bodyBytes += piece.length;
    const { maxBodyBytes } = this.#entry.policy.limits;
    if (maxBodyBytes > 0 && this.#bodyBytes > maxBodyBytes) {
      this.#fail(new AppError("CALL_TOO_LARGE", [this.#entry.key, maxBodyBytes]));
      return;
    }
    if (this.#bodyBytes > maxKept) this.#kept = null;
    this.#kept?.push(piece);
    this.#write(piece);
  }

  #write(piece: Buffer): void {
    const connection = this.#connection!;
    if (!(this.#isChunked ? connection.writeChunk(piece) : connection.write(piece))) this.#req.pause();
  }

  drain(): void {
    this.#req.resume();
  }

  // --- the answer ---------------------------------------------------------------------------------------------------

  head(head: ResponseHead): void {
    if (head.status === 101) {
      if (this.#upgrade) this.#switch(head, this.#upgrade);
      return;
    }
    this.#kept = null;
    this.#res.writeHead(head.status, responseHeaders(head, this.#ids, this.#req.headers["content-type"]));
  }

  data(piece: Buffer): void {
    if (this.#held) this.#push(this.#held);
    this.#held = piece;
  }

  batchEnd(): void {
    if (this.#held) this.#push(this.#held);
    this.#held = null;
    // an event stream's head must not wait for its first event
    if (!this.#isFlushed && this.#res.headersSent) {
      this.#isFlushed = true;
      this.#res.flushHeaders();
    }
  }

  #push(piece: Buffer): void {
    this.#isFlushed = true;
    if (this.#res.write(Buffer.from(piece))) return;
    this.#connection?.pause();
    if (this.#drains) return;
    this.#drains = true;
    this.#res.on("drain", () => this.#connection?.resume());
  }

  end(): void {
    this.#connection = null;
    if (this.#leavesUnread) lingerAtEnd(this.#req.socket);
    const held = this.#held;
    this.#held = null;
    // as text a small body leaves together with the head, in one write
    if (held === null) this.#res.end();
    else if (held.length <= maxText) this.#res.end(held.toString("latin1"), "latin1");
    else this.#res.end(Buffer.from(held));
  }

  #switch(head: ResponseHead, upgrade: Upgrading): void {
    const connection = this.#connection!;
    this.#connection = null;
    this.#hasSwitched = true;
    this.#o.deadlines.delete(this);
    upgrade.join(connection.detach(), head, responseHeaders(head, this.#ids, undefined), this.#o.tunnelIdleMs, () =>
      this.#end(),
    );
  }

  // --- ends ---------------------------------------------------------------------------------------------------------

  failed(error: Error): void {
    const connection = this.#connection!;
    const replica = this.#replica!;
    this.#connection = null;
    if (!connection.isConnected && refuses(error)) {
      // not a byte has left: another replica may have the call, or this one when it has been looked at
      this.#entry.doubt(replica);
      this.#giveBack();
      if (++this.#attempts < maxAttempts) this.#dispatch();
      else this.#fail(new AppError("UPSTREAM_FAILED", [this.#entry.key, reasonOf(error)], { cause: error }));
    } else if (connection.isReused && !connection.isAnswered && this.#maySendAgain) {
      // the function had closed the connection, most likely, and has not seen the request
      this.#isRepeated = true;
      this.#req.pause();
      this.#send(replica.pool!.open());
    } else void this.#broken(error, replica);
  }

  get #maySendAgain(): boolean {
    if (this.#isRepeated || !idempotent.has(this.#req.method!)) return false;
    return !this.#hasBody || !this.#bodyBegun || this.#kept !== null;
  }

  /** The function cut the call off, or its process has died: which of both, is news that may be on its way. */
  async #broken(error: Error, replica: Replica): Promise<void> {
    const lost = this.#res.headersSent ? null : await replica.lost(newsMs);
    const why = lost ?? reasonOf(error);
    this.#fail(new AppError("UPSTREAM_FAILED", [this.#entry.key, why], { cause: error }));
  }

  expire(): void {
    const { timeoutMs, timeoutSource } = this.#entry.policy;
    const when =
      this.#place === "waiting"
        ? "the call was still waiting for its turn"
        : this.#connection === null
          ? "it was still waking up"
          : "";
    this.#fail(new AppError("UPSTREAM_TIMEOUT", [this.#entry.key, timeoutMs / 1000, timeoutSource, when]));
  }

  /** Ends the call with an error of the platform; once the answer has begun, by cutting the connection. */
  #fail(error: AppError, headers: Record<string, string> = {}): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#connection?.destroy();
    this.#connection = null;
    this.#leaveQueue();
    if (this.#res.headersSent) {
      // for an old client, the connection's end is the end of the body: only a reset says that something is missing
      if (this.#req.httpVersionMinor === 0) this.#res.socket?.resetAndDestroy();
      else this.#res.destroy();
      return;
    }
    const closes = this.#leavesUnread;
    if (closes) lingerAtEnd(this.#req.socket);
    refuse(this.#res, error, this.#ids, closes ? { ...headers, Connection: "close" } : headers);
  }

  /** Whether more of the request's body is still to come than is worth reading. */
  get #leavesUnread(): boolean {
    if (!this.#hasBody || this.#bodyDone) return false;
    return this.#isChunked || Number(this.#req.headers["content-length"]) - this.#bodyBytes > maxUnread;
  }

  /** The answer is closed, whoever closed it. */
  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#isOver = true;
    this.#o.deadlines.delete(this);
    this.#connection?.destroy();
    this.#connection = null;
    this.#giveBack();
    const { admission, calls, policy } = this.#entry;
    // a caller who left before there was an answer got none; 499 is what others write down for that
    const status = this.#hasSwitched ? 101 : this.#res.headersSent ? this.#res.statusCode : 499;
    calls.end(status, (performance.now() - this.#begin) / 1000);
    if (this.#leavesUnread) linger(this.#req.socket);
    if (this.#place === "running") admission.leave(policy.limits);
    else this.#leaveQueue();
  }

  #leaveQueue(): void {
    if (this.#place !== "waiting") return;
    this.#place = "none";
    this.#entry.admission.withdraw(this);
  }
}

/** Nobody listens there, or nobody is there. */
function refuses(error: Error): boolean {
  return /^(ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ETIMEDOUT)$/.test(systemCode(error) ?? "");
}

function reasonOf(error: Error): string {
  const code = systemCode(error);
  if (code === "ECONNREFUSED") return "it refused the connection";
  if (code === "ECONNRESET" || code === "EPIPE") return "it closed the connection before its answer was complete";
  return error.message;
}
