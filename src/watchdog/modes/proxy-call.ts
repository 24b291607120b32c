import { formatDuration, parseDuration } from "../../base/durations.ts";
import { messageOf } from "../../base/errors.ts";
import { CHUNKED, fieldValue, type RequestHead, type ResponseHead } from "../../http1/head.ts";
import type { Config } from "../config.ts";
import { originForm } from "../environment.ts";
import type { Exchange } from "../http1/exchange.ts";
import { namesType, passedOn, requestText, responseFields } from "../http1/forward.ts";
import { sniffContentType } from "../http1/sniff.ts";
import { reasonPhrase } from "../http1/status.ts";
import { tunnel } from "../http1/tunnel.ts";
import type { Call, UpstreamConnection, UpstreamPool } from "../http1/upstream.ts";
import { log, logAccess } from "../log.ts";
import { BaseHandler, secondsSince } from "./mode.ts";

/** Methods that may be sent again when nothing came back (RFC 9110 §9.2.2). */
const idempotent = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);

/**
 * One call, between the client's connection (Handler) and the upstream's (Call). Bytes go straight through; whoever
 * is slower pauses the other side.
 */
export class ProxyCall extends BaseHandler implements Call {
  readonly #exchange: Exchange;
  readonly #request: RequestHead;
  readonly #config: Config;
  readonly #pool: UpstreamPool;
  readonly #limitMs: number;
  #upstream: UpstreamConnection | null = null;
  #buffered: Buffer[] | null = null;
  #untyped: { head: ResponseHead; seconds: string } | null = null;
  #done = false;

  constructor(exchange: Exchange, config: Config, pool: UpstreamPool) {
    super();
    this.#exchange = exchange;
    this.#request = exchange.request;
    this.#config = config;
    this.#pool = pool;
    this.#limitMs = effectiveLimit(exchange.request, config.execTimeoutMs);
    exchange.execDeadline.set(this.#limitMs);
  }

  /** The upstream listens: go. */
  begin(): void {
    if (this.#done) return;
    if (this.#config.http.bufferRequestBody && this.#request.bodyLength === CHUNKED) this.#buffered = [];
    else this.#send(this.#pool.take() ?? this.#pool.open(), this.#request.bodyLength);
    this.#exchange.readBody();
  }

  #send(upstream: UpstreamConnection, bodyLength: number): void {
    this.#upstream = upstream;
    const { url, basePath } = this.#config.http.upstream;
    upstream.begin(this, this.#request.method, requestText(this.#request, url, basePath, bodyLength));
  }

  // --- from the client --------------------------------------------------------------------------------------------

  override bodyData(piece: Buffer): void {
    if (this.#buffered) this.#buffered.push(piece);
    else if (this.#upstream) this.#upstream.writer.body(piece, this.#request.bodyLength === CHUNKED);
  }

  override bodyEnd(): void {
    if (this.#buffered) {
      this.#sendBuffered();
      return;
    }
    if (!this.#upstream) return;
    if (this.#request.bodyLength === CHUNKED) this.#upstream.writer.text("0\r\n\r\n");
    this.#upstream.requestDone();
  }

  /** http_buffer_req_body: for servers that know bodies by their length only, like old WSGI ones. */
  #sendBuffered(): void {
    const body = Buffer.concat(this.#buffered!);
    this.#buffered = null;
    this.#send(this.#pool.take() ?? this.#pool.open(), body.length);
    this.#upstream!.writer.bytes(body);
    this.#upstream!.requestDone();
  }

  override batchEnd(): void {
    const writer = this.#upstream?.writer;
    if (!writer) return;
    writer.flush();
    if (!writer.writable) this.#exchange.pauseBody();
  }

  override bodyError(why: string): void {
    log(`Upstream HTTP request error: ${this.#what}: ${why}`);
    this.#fail(400);
  }

  override drain(): void {
    this.#upstream?.resume();
  }

  /** The client closed, or half-closed, which cannot be told apart: as Go does, the call is cancelled. */
  override inputEnded(): void {
    this.clientGone();
    this.#exchange.destroy();
  }

  override clientGone(): void {
    if (this.#done) return;
    log(`Upstream HTTP request error: ${this.#what}: client closed the connection`);
    this.#finish();
  }

  override execTimeout(): void {
    if (this.#done) return;
    log(`Upstream HTTP request error: ${this.#what}: context deadline exceeded`);
    log(`Upstream HTTP killed due to exec_timeout: ${formatDuration(this.#limitMs)}`);
    this.#fail(504);
  }

  // --- from the upstream ------------------------------------------------------------------------------------------

  head(head: ResponseHead): void {
    const seconds = secondsSince(this.#exchange.startedAt);
    const upgraded = head.status === 101;
    if (upgraded && this.#request.upgrade === "") {
      this.failed(new Error("unasked change of protocol"));
      return;
    }
    if (head.bodyLength !== 0 && !namesType(head)) this.#untyped = { head, seconds };
    else this.#sendHead(head, seconds, "");
    if (upgraded) this.#upgrade();
  }

  #sendHead(head: ResponseHead, seconds: string, more: string): void {
    // A length that the upstream gave travels among its fields; only chunking is ours to say.
    const length = head.bodyLength < 0 ? CHUNKED : null;
    this.#exchange.head(head.status, responseFields(head, seconds) + more, length);
    this.#access(head, Number(seconds));
  }

  /** Sends a head that waited for the first bytes of its body, by which its type is told (contracts/watchdog.md §2). */
  #sendUntyped(first: Buffer | null): void {
    const { head, seconds } = this.#untyped!;
    this.#untyped = null;
    this.#sendHead(head, seconds, first ? `Content-Type: ${sniffContentType(first)}\r\n` : "");
  }

  interim(head: ResponseHead): void {
    // 100 has been said by the server side, when it began to read the body.
    if (head.status !== 100) this.#exchange.interim(head.status, passedOn(head.fields, head.hopFields, ""));
  }

  data(piece: Buffer): void {
    if (this.#untyped) this.#sendUntyped(piece);
    this.#exchange.write(piece);
  }

  answerBatchEnd(): void {
    this.#exchange.flush();
    if (!this.#exchange.writable) this.#upstream?.pause();
  }

  end(): void {
    if (this.#untyped) this.#sendUntyped(null);
    this.#upstream = null;
    this.#done = true;
    this.#exchange.end();
  }

  upstreamDrain(): void {
    this.#exchange.resumeBody();
  }

  failed(error: Error): void {
    const upstream = this.#upstream;
    if (this.#done) return;
    if (upstream?.reused && !upstream.answered && this.#repeatable()) {
      this.#again();
      return;
    }
    this.refuse(messageOf(error));
  }

  /** A kept connection had been closed at the very moment of its use: not an error of the function. */
  #again(): void {
    this.#send(this.#pool.open(), 0);
    this.#upstream!.requestDone();
    this.#upstream!.writer.flush();
  }

  #repeatable(): boolean {
    return this.#request.bodyLength === 0 && idempotent.has(this.#request.method);
  }

  #upgrade(): void {
    const upstream = this.#upstream!;
    this.#upstream = null;
    this.#done = true;
    const theirs = upstream.detach();
    tunnel(this.#exchange.detach(), theirs);
  }

  // --- ends -------------------------------------------------------------------------------------------------------

  /** Answers that the function cannot be reached. */
  refuse(why: string): void {
    log(`Upstream HTTP request error: ${this.#what}: ${why}`);
    this.#fail(wantsStream(this.#request) ? 502 : 500);
  }

  #fail(status: number): void {
    const { headSent } = this.#exchange;
    if (this.#done) return;
    this.#finish();
    if (headSent) {
      this.#exchange.destroy();
      return;
    }
    const seconds = secondsSince(this.#exchange.startedAt);
    this.#exchange.respond(status, `X-Duration-Seconds: ${seconds}\r\nX-OpenFaaS-Internal: of-watchdog\r\n`, "");
  }

  #finish(): void {
    this.#done = true;
    this.#buffered = null;
    this.#upstream?.destroy();
    this.#upstream = null;
  }

  get #what(): string {
    const { method } = this.#request;
    const { url } = this.#config.http.upstream;
    return `${method.charAt(0)}${method.slice(1).toLowerCase()} "${url}${originForm(this.#request.target)}"`;
  }

  #access(head: ResponseHead, seconds: number): void {
    const result = `${head.status} ${head.reason || reasonPhrase(head.status)}`;
    const bytes = head.bodyLength < 0 ? -1 : contentLength(head);
    logAccess({ request: this.#request, result, bytes, seconds, callId: this.#config.log.callId });
  }
}

/** Calls that the reference serves by Go's ReverseProxy, whose answer for a dead upstream is 502 (§3.4, §5, 8). */
function wantsStream({ fields, upgrade }: RequestHead): boolean {
  return upgrade !== "" || /text\/event-stream|application\/x-ndjson/i.test(fieldValue(fields, "accept"));
}

/** exec_timeout, or a shorter X-Timeout of the caller; whole numbers and values of 0 or less count for nothing. */
export function effectiveLimit(request: RequestHead, execTimeoutMs: number): number {
  const { fields } = request;
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i]!.length !== 9 || fields[i]!.toLowerCase() !== "x-timeout") continue;
    const text = fields[i + 1]!;
    const asked = /^\d+$/.test(text) ? undefined : parseDuration(text);
    if (asked !== undefined && asked > 0 && asked < execTimeoutMs) return asked;
  }
  return execTimeoutMs;
}

function contentLength(head: ResponseHead): number {
  return head.bodyLength || Number(fieldValue(head.fields, "content-length") || 0);
}
