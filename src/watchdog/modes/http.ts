import { formatDuration, parseDuration } from "../../base/durations.ts";
import { messageOf } from "../../base/errors.ts";
import { type Child, describeExit, type Exit, killGroup, startChild } from "../child.ts";
import type { Config } from "../config.ts";
import { originForm } from "../environment.ts";
import type { Exchange, Handler } from "../http1/exchange.ts";
import { CHUNKED, fieldValue, type RequestHead, type ResponseHead } from "../http1/head.ts";
import { isHopByHop } from "../http1/hop.ts";
import { sniffContentType } from "../http1/sniff.ts";
import { reasonPhrase } from "../http1/status.ts";
import { tunnel } from "../http1/tunnel.ts";
import { type Call, type UpstreamConnection, UpstreamPool } from "../http1/upstream.ts";
import { log, logAccess, stderr, stdout } from "../log.ts";
import { addressesOf, untilListening } from "../readiness.ts";
import { relayFor } from "../relay.ts";
import { BaseHandler, type Mode, secondsSince } from "./mode.ts";

/** Milliseconds between SIGTERM and SIGKILL for a function that does not end by itself. */
const STOP_GRACE_MS = 2000;

/** Milliseconds that the kernel gets to end what was killed, so that nothing of it outlives us. */
const KILL_MS = 200;

/** A reverse proxy to the function's own HTTP server, which is started once (contracts/watchdog.md §3.4). */
export class HttpMode implements Mode {
  readonly #config: Config;
  readonly #environment: Record<string, string>;
  readonly pool: UpstreamPool;
  readonly #stopReady = new AbortController();
  readonly #waiting = new Set<ProxyCall>();
  #child: Child | null = null;
  #ready = false;
  #stopping = false;

  constructor(config: Config, environment: Record<string, string>) {
    this.#config = config;
    this.#environment = environment;
    this.pool = new UpstreamPool(addressesOf(config.http.upstream.host)[0]!, config.http.upstream);
  }

  async start(): Promise<string> {
    const { command } = this.#config;
    log(`Forking: ${command[0]}, arguments: [${command.slice(1).join(" ")}]`);
    const err = relayFor(stderr, "stderr", this.#config.log);
    const out = relayFor(stdout, "stdout", this.#config.log);
    this.#child = startChild({
      command,
      env: this.#environment,
      stdin: "open",
      stdout: (chunk) => out.write(chunk),
      stderr: (chunk) => err.write(chunk),
    });
    void this.#child.closed.then(
      () => [out, err].forEach((relay) => void relay.end()),
      () => {},
    );
    void this.#watchReadiness();
    const exit = await this.#child.exited.finally(() => this.#gone());
    return `Forked function has terminated: ${describeExit(exit)}`;
  }

  ready(): boolean {
    return this.#ready;
  }

  serve(exchange: Exchange): Handler {
    const call = new ProxyCall(exchange, this.#config, this.pool);
    if (this.#ready) call.begin();
    else if (this.#stopReady.signal.aborted) call.refuse("the function has terminated");
    else this.#waiting.add(call);
    return call;
  }

  signal(name: NodeJS.Signals): void {
    if (this.#child) killGroup(this.#child.pid, name);
  }

  /** SIGTERM, and SIGKILL for the whole group when the function lingers. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#stopReady.abort();
    const child = this.#child;
    if (!child) return;
    killGroup(child.pid, "SIGTERM");
    const lingers = setTimeout(() => log("The function ignores SIGTERM; killing it"), STOP_GRACE_MS);
    const exit = child.exited.catch((): Exit => ({ code: 0, signal: null }));
    await Promise.race([exit, new Promise((resolve) => setTimeout(resolve, STOP_GRACE_MS))]);
    clearTimeout(lingers);
    killGroup(child.pid, "SIGKILL"); // also what it left behind
    await Promise.race([exit, new Promise((resolve) => setTimeout(resolve, KILL_MS))]);
  }

  async #watchReadiness(): Promise<void> {
    const { host, port } = this.#config.http.upstream;
    const found = await untilListening(addressesOf(host), port, this.#stopReady.signal);
    if (found === null) return;
    this.pool.host = found;
    this.#ready = true;
    log("Function is ready");
    for (const call of this.#waiting) call.begin();
    this.#waiting.clear();
  }

  #gone(): void {
    this.#ready = false;
    this.#stopReady.abort();
    if (this.#stopping) return;
    for (const call of this.#waiting) call.refuse("the function has terminated");
    this.#waiting.clear();
  }
}

/** Methods that may be sent again when nothing came back (RFC 9110 §9.2.2). */
const idempotent = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);

/**
 * One call, between the client's connection (Handler) and the upstream's (Call). Bytes go straight through; whoever
 * is slower pauses the other side.
 */
class ProxyCall extends BaseHandler implements Call {
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
    this.#log(`Upstream HTTP request error: ${this.#what}: ${why}`);
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
    this.#log(`Upstream HTTP request error: ${this.#what}: client closed the connection`);
    this.#finish();
  }

  override execTimeout(): void {
    if (this.#done) return;
    this.#log(`Upstream HTTP request error: ${this.#what}: context deadline exceeded`);
    this.#log(`Upstream HTTP killed due to exec_timeout: ${formatDuration(this.#limitMs)}`);
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
    this.#log(`Upstream HTTP request error: ${this.#what}: ${why}`);
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

  #log(message: string): void {
    log(message);
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

function requestText(request: RequestHead, url: string, basePath: string, bodyLength: number): string {
  const path = originForm(request.target);
  let text = `${request.method} ${path === "*" ? path : basePath + path} HTTP/1.1\r\n`;
  if (request.host === "") text += `Host: ${url.replace(/^https?:\/\//i, "").replace(/\/.*/, "")}\r\n`;
  text += passedOn(request.fields, request.hopFields, request.bodyLength === CHUNKED ? "content-length" : "");
  if (bodyLength === CHUNKED) text += "Transfer-Encoding: chunked\r\n";
  else if (request.bodyLength === CHUNKED) text += `Content-Length: ${bodyLength}\r\n`;
  if (request.upgrade !== "") text += `Connection: Upgrade\r\nUpgrade: ${request.upgrade}\r\n`;
  return `${text}\r\n`;
}

/** Whether an answer says what its body is, or that this cannot be told from its bytes. */
function namesType({ fields }: ResponseHead): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    const { length } = fields[i]!;
    if (length !== 12 && length !== 16) continue;
    const name = fields[i]!.toLowerCase();
    if (name === "content-type" || name === "content-encoding") return true;
  }
  return false;
}

function responseFields(head: ResponseHead, seconds: string): string {
  // 204 must not have a length, and a length beside chunks is void (RFC 9110 §8.6, RFC 9112 §6.2).
  const without = head.status === 204 || head.bodyLength === CHUNKED ? "content-length" : "";
  let text = passedOn(head.fields, head.hopFields, without, "x-duration-seconds");
  if (head.status === 101) text += `Connection: Upgrade\r\nUpgrade: ${fieldValue(head.fields, "upgrade")}\r\n`;
  return `${text}X-Duration-Seconds: ${seconds}\r\n`;
}

/** The end-to-end fields as lines: order, case and repetitions as they came, without hop-by-hop ones and `without`. */
function passedOn(fields: readonly string[], hop: readonly string[], ...without: string[]): string {
  let text = "";
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!;
    if (isHopByHop(name, hop) || without.some((w) => w.length === name.length && w === name.toLowerCase())) continue;
    text += `${name}: ${fields[i + 1]}\r\n`;
  }
  return text;
}

function contentLength(head: ResponseHead): number {
  return head.bodyLength || Number(fieldValue(head.fields, "content-length") || 0);
}
