import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { CaseRequest } from "./case.ts";

/** What came back, as bytes on the wire; no HTTP library smooths anything over. */
export interface Seen {
  status: number;
  /** Canonical name → values. */
  headers: Map<string, string[]>;
  body: Buffer;
  framing: "length" | "chunked" | "close" | "none" | "upgraded" | "";
  interim: number[];
  /** The connection was ended by the other side, at once or after the answer. */
  closed: boolean;
  error: string;
  ms: number;
  ttfbMs: number;
}

/** Milliseconds without an answer after which a request is given up. */
const PATIENCE_MS = 15_000;
/** How long a connection that should close may stay open. */
const CLOSE_MS = 1500;

/** Sends one request on a connection of its own and reads its answer to the end. */
export async function send(request: CaseRequest, port: number, untilClosed = false): Promise<Seen> {
  const started = performance.now();
  const answer = new Answer(request, started);
  const socket = connect({ port: request.port ?? port, host: "127.0.0.1", allowHalfOpen: true });
  socket.setNoDelay(true);
  socket.on("data", (chunk) => answer.take(chunk));
  socket.on("end", () => answer.ended());
  socket.on("error", (e: NodeJS.ErrnoException) => answer.broken(e.code ?? e.message));
  socket.on("close", () => answer.ended());
  const patience = setTimeout(() => answer.broken("client-timeout"), request.timeoutMs ?? PATIENCE_MS);
  void write(socket, request, port, answer);
  await answer.complete.promise;
  clearTimeout(patience);
  if (untilClosed) await answer.closedSoon();
  socket.destroy();
  return answer.seen;
}

/** Sends a request and leaves after `ms`, without waiting for the answer. */
export async function sendAndLeave(request: CaseRequest, port: number, ms: number): Promise<void> {
  const socket = connect(port, "127.0.0.1").on("error", () => {});
  socket.write(head(request, bodyOf(request), port), "latin1");
  await sleep(ms);
  socket.destroy();
}

async function write(socket: Socket, request: CaseRequest, port: number, answer: Answer): Promise<void> {
  if (request.raw !== undefined) {
    socket.write(request.raw, "utf8");
    return;
  }
  const body = bodyOf(request);
  socket.write(head(request, body, port), "latin1");
  if (isExpecting(request)) await answer.interimSeen.promise;
  for (const [part, pause] of parts(request, body)) {
    if (pause > 0) await sleep(pause);
    if (socket.destroyed) return;
    if (!request.chunked) socket.write(part);
    else socket.write(Buffer.concat([Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from("\r\n")]));
  }
  if (request.chunked) socket.write("0\r\n\r\n");
  if (request.afterUpgrade) {
    await answer.headSeen.promise;
    socket.write(request.afterUpgrade);
  }
}

function isExpecting(request: CaseRequest): boolean {
  return !!request.headers?.some(([name]) => name.toLowerCase() === "expect");
}

function bodyOf(request: CaseRequest): Buffer | null {
  if (request.bodyRepeat) return Buffer.alloc(request.bodyRepeat[1], request.bodyRepeat[0]);
  return request.body === undefined ? null : Buffer.from(request.body);
}

function head(request: CaseRequest, body: Buffer | null, port: number): string {
  const fields = (request.headers ?? []).map(([name, value]) => [name, textOf(value)] as const);
  const has = (name: string): boolean => fields.some(([n]) => n.toLowerCase() === name);
  let text = `${request.method ?? "GET"} ${request.path ?? "/"} HTTP/1.1\r\n`;
  if (!has("host")) text += `Host: 127.0.0.1:${port}\r\n`;
  for (const [name, value] of fields) text += `${name}: ${value}\r\n`;
  if (request.chunked) text += "Transfer-Encoding: chunked\r\n";
  else if (body && !has("content-length")) text += `Content-Length: ${body.length}\r\n`;
  return `${text}\r\n`;
}

function textOf(value: string | { repeat: [string, number] }): string {
  return typeof value === "string" ? value : value.repeat[0].repeat(value.repeat[1]);
}

/** Pieces of the body, each with the pause before it. */
function parts(request: CaseRequest, body: Buffer | null): [Buffer, number][] {
  if (!body || body.length === 0) return [];
  if (request.slowSend) {
    const [bytes, ms] = request.slowSend;
    return [
      [body.subarray(0, bytes), 0],
      [body.subarray(bytes), ms],
    ];
  }
  const [count, ms] = request.sendParts ?? [1, 0];
  const size = Math.ceil(body.length / count);
  return Array.from({ length: count }, (_, i) => [body.subarray(i * size, (i + 1) * size), i > 0 ? ms : 0]);
}

/** Reads one answer out of the bytes that arrive. */
class Answer {
  readonly seen: Seen;
  readonly complete = Promise.withResolvers<void>();
  readonly headSeen = Promise.withResolvers<void>();
  readonly interimSeen = Promise.withResolvers<void>();
  readonly #request: CaseRequest;
  readonly #started: number;
  readonly #body: Buffer[] = [];
  readonly #end = Promise.withResolvers<void>();
  #bytes: Buffer = Buffer.alloc(0);
  #any = false;
  #done = false;
  /** Bytes of the body, or of the present chunk, that are still to come. */
  #left = 0;

  constructor(request: CaseRequest, started: number) {
    this.#request = request;
    this.#started = started;
    this.seen = {
      status: 0,
      headers: new Map(),
      body: Buffer.alloc(0),
      framing: "",
      interim: [],
      closed: false,
      error: "",
      ms: 0,
      ttfbMs: 0,
    };
  }

  take(chunk: Buffer): void {
    if (this.#done) return;
    if (!this.#any) this.seen.ttfbMs = performance.now() - this.#started;
    this.#any = true;
    this.#bytes = this.#bytes.length > 0 ? Buffer.concat([this.#bytes, chunk]) : chunk;
    while (!this.#done && this.#step());
  }

  ended(): void {
    this.seen.closed = true;
    this.#end.resolve();
    if (this.#done) return;
    if (this.seen.framing === "close") this.#finish("");
    else this.#finish(this.#any ? "truncated-body" : "empty-reply");
  }

  broken(code: string): void {
    if (this.#done) return;
    if (code === "ECONNREFUSED") this.#finish("connect: ConnectionRefusedError");
    else if (code === "client-timeout") this.#finish(code);
    else this.#finish(this.#any ? "truncated-body" : "empty-reply");
  }

  /** Waits for the end of a connection that should end. */
  async closedSoon(): Promise<void> {
    await Promise.race([this.#end.promise, sleep(CLOSE_MS, undefined, { ref: false })]);
  }

  #step(): boolean {
    switch (this.seen.framing) {
      case "":
        return this.#readHead();
      case "length":
        this.#takeBody(this.#left);
        if (this.#left === 0) this.#finish("");
        return false;
      case "chunked":
        return this.#readChunk();
      default:
        this.#takeBody(this.#bytes.length);
        if (this.seen.framing === "upgraded" && this.#collected() >= this.#expectedEcho()) this.#finish("");
        return false;
    }
  }

  #collected(): number {
    return this.#body.reduce((sum, part) => sum + part.length, 0);
  }

  #expectedEcho(): number {
    return this.#request.afterUpgrade ? "echo:".length + this.#request.afterUpgrade.length : 0;
  }

  #takeBody(length: number): void {
    const piece = this.#bytes.subarray(0, length);
    this.#left -= piece.length;
    this.#body.push(piece);
    this.#bytes = this.#bytes.subarray(piece.length);
  }

  #readHead(): boolean {
    const end = this.#bytes.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const [first, ...lines] = this.#bytes.toString("latin1", 0, end).split("\r\n");
    this.#bytes = this.#bytes.subarray(end + 4);
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(first!)?.[1]);
    if (status >= 100 && status < 200 && status !== 101) {
      this.seen.interim.push(status);
      this.interimSeen.resolve();
      return true;
    }
    this.seen.status = status;
    for (const line of lines) this.#addField(line);
    this.#frame(status);
    this.headSeen.resolve();
    this.interimSeen.resolve();
    return true;
  }

  #addField(line: string): void {
    const colon = line.indexOf(":");
    const name = line
      .slice(0, colon)
      .toLowerCase()
      .replace(/(^|-)[a-z]/g, (s) => s.toUpperCase());
    const values = this.seen.headers.get(name) ?? [];
    this.seen.headers.set(name, [...values, line.slice(colon + 1).trim()]);
  }

  #frame(status: number): void {
    const length = this.seen.headers.get("Content-Length")?.[0];
    if (status === 101) this.seen.framing = "upgraded";
    else if (this.#request.method === "HEAD" || status === 204 || status === 304) {
      this.seen.framing = "none";
      this.#finish("");
    } else if (this.seen.headers.has("Transfer-Encoding")) this.seen.framing = "chunked";
    else if (length !== undefined) {
      this.seen.framing = "length";
      this.#left = Number(length);
    } else this.seen.framing = "close";
  }

  #readChunk(): boolean {
    if (this.#left > 0) {
      this.#takeBody(Math.min(this.#left, this.#bytes.length));
      return this.#left === 0 && this.#bytes.length > 0;
    }
    const from = this.#body.length > 0 ? 2 : 0; // the line end of the chunk before
    const end = this.#bytes.indexOf("\r\n", from);
    if (end < 0) return false;
    const size = Number.parseInt(this.#bytes.toString("latin1", from, end), 16);
    if (size === 0) {
      if (this.#bytes.length >= end + 4) this.#finish("");
      return false;
    }
    this.#bytes = this.#bytes.subarray(end + 2);
    this.#left = size;
    return true;
  }

  #finish(error: string): void {
    if (this.#done) return;
    this.#done = true;
    this.seen.error = error;
    this.seen.ms = performance.now() - this.#started;
    this.seen.body = Buffer.concat(this.#body);
    this.complete.resolve();
    this.headSeen.resolve();
    this.interimSeen.resolve();
  }
}
