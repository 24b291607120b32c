import http from "node:http";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parsed, type Reply, refused, type Shape, unreachable } from "./answers.ts";
import { type Context, isTraced } from "./context.ts";
import { defaultGateway, findLogin, normalGateway } from "./credentials.ts";
import { Failure } from "./failure.ts";
import type { GatewayFlags } from "./flags.ts";
import { remark } from "./output.ts";

export interface RequestOptions {
  readonly query?: Readonly<Record<string, string | undefined>>;
  /** Anything but bytes is sent as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string | string[]>>;
  /** Of the whole exchange; 0: none. */
  readonly timeoutMs?: number;
  /** Without what the gateway's own API asks for. */
  readonly anonymous?: boolean;
}

export interface Gateway {
  /** Normalised. */
  readonly url: string;
  /** The answer's head has come; its body is the caller's to read. */
  open(method: string, path: string, options?: RequestOptions): Promise<http.IncomingMessage>;
  /** The rest of such an answer. */
  read(response: http.IncomingMessage): Promise<Reply>;
  request(method: string, path: string, options?: RequestOptions): Promise<Reply>;
  /** With a body of unknown length. */
  send(method: string, path: string, body: Readable, options?: RequestOptions): Promise<Reply>;
  /** The answer, which must have one of these statuses; the gateway's own words are in the failure otherwise. */
  expect(statuses: readonly number[], method: string, path: string, options?: RequestOptions): Promise<Reply>;
  /** What a GET answers with 200: JSON of this shape. */
  get<T>(path: string, query?: RequestOptions["query"], shape?: Shape): Promise<T>;
}

/** Of one request. */
export const usualTimeoutMs = 60_000;
/** Of an answer that is read as a whole. */
const maxBodyBytes = 64 * 2 ** 20;

/** Which gateway is meant: the flag, the stack file's, OPENFAAS_URL, the local one. */
export function gatewayUrl({ env }: Context, flags: GatewayFlags, ofStack?: string): string {
  const stack = ofStack && normalGateway(ofStack) !== defaultGateway ? ofStack : undefined;
  return normalGateway(flags.gateway || stack || env.NAP_URL || env.OPENFAAS_URL || defaultGateway);
}

export async function openGateway(context: Context, flags: GatewayFlags, ofStack?: string): Promise<Gateway> {
  const url = gatewayUrl(context, flags, ofStack);
  const login = flags.token === undefined ? await findLogin(context, url) : { auth: "oauth2", token: flags.token };
  const authorization = login && `${login.auth === "basic" ? "Basic" : "Bearer"} ${login.token}`;
  return connect(context, { url, authorization, tlsVerify: flags.tlsVerify, timeoutMs: flags.timeout });
}

export interface Connection {
  readonly url: string;
  readonly authorization?: string | undefined;
  readonly tlsVerify?: boolean;
  readonly timeoutMs?: number | undefined;
}

/** A gateway, or any other HTTP server. */
export function connect(
  context: Context,
  { url, authorization, tlsVerify = true, timeoutMs = usualTimeoutMs }: Connection,
): Gateway {
  const secure = url.startsWith("https:");
  const settings = { keepAlive: true, proxyEnv: context.env };
  // TLS takes its time to load
  const { request: ask, Agent } = secure ? process.getBuiltinModule("node:https") : http;
  const tls = secure && (tlsVerify ? { ca: authorities() } : { rejectUnauthorized: false });
  const agent = new Agent({ ...settings, ...tls });

  async function open(method: string, path: string, options: RequestOptions = {}): Promise<http.IncomingMessage> {
    const { query = {}, body, headers = {}, anonymous = false } = options;
    const target = new URL(url + path);
    const given = Object.entries(query).filter((entry): entry is [string, string] => entry[1] !== undefined);
    if (given.length > 0) target.search = new URLSearchParams(given.sort(([a], [b]) => (a < b ? -1 : 1))).toString();
    const isStream = isReadable(body);
    const asIs = body === undefined || Buffer.isBuffer(body) || isStream;
    const bytes = asIs ? (isStream ? undefined : (body as Buffer | undefined)) : Buffer.from(JSON.stringify(body));
    const limit = options.timeoutMs ?? timeoutMs;
    const signal = limit > 0 ? AbortSignal.any([context.signal, AbortSignal.timeout(limit)]) : context.signal;
    const sent = {
      "User-Agent": `nap/${await context.version()}`,
      ...(bytes !== undefined && { "Content-Length": String(bytes.length) }),
      ...(!asIs && { "Content-Type": "application/json" }),
      ...(authorization !== undefined && !anonymous && { Authorization: authorization }),
      ...headers,
    };
    const began = performance.now();
    const trace = (what: unknown) =>
      isTraced(context) && remark(context, `${method} ${target}: ${what}, ${Math.round(performance.now() - began)} ms`);
    return new Promise((resolve, reject) => {
      const request = ask(target, { method, agent, signal, headers: sent }, (response) => {
        trace(response.statusCode);
        resolve(response);
      });
      request.once("error", (e) => {
        trace(e.message);
        reject(context.signal.aborted || e instanceof Failure ? e : unreachable(url, e, limit));
      });
      // a failure of the connection is told by the request; one of the input ends it as well
      if (isStream) pipeline(body, request).catch((e) => request.destroy(e));
      else request.end(bytes);
    });
  }

  async function read(response: http.IncomingMessage, limitMs = timeoutMs): Promise<Reply> {
    const pieces: Buffer[] = [];
    let size = 0;
    try {
      for await (const piece of response) {
        pieces.push(piece);
        size += piece.length;
        if (size > maxBodyBytes) break;
      }
    } catch (e) {
      throw context.signal.aborted ? e : unreachable(url, e as Error, limitMs);
    }
    if (size > maxBodyBytes)
      throw new Failure(`${url} answers with more than ${maxBodyBytes / 2 ** 20} MiB; is it an OpenFaaS gateway?`);
    const bytes = Buffer.concat(pieces);
    return { status: response.statusCode!, headers: response.headers, bytes, text: bytes.toString() };
  }

  const request: Gateway["request"] = async (method, path, options = {}) =>
    read(await open(method, path, options), options.timeoutMs);

  const expect: Gateway["expect"] = async (statuses, method, path, options) => {
    const reply = await request(method, path, options);
    if (!statuses.includes(reply.status)) throw refused(url, reply);
    return reply;
  };

  return {
    url,
    open,
    read,
    request,
    send: (method, path, body, options) => request(method, path, { ...options, body }),
    expect,
    get: async <T>(path: string, query?: RequestOptions["query"], shape?: Shape) =>
      parsed<T>(url + path, await expect([200], "GET", path, { ...(query && { query }) }), shape),
  };
}

/** Authorities of the system as well as Node's own; OpenSSL's SSL_CERT_FILE and SSL_CERT_DIR say where those are. */
function authorities(): string[] {
  const { getCACertificates } = process.getBuiltinModule("node:tls");
  return [...new Set([...getCACertificates("default"), ...getCACertificates("system")])];
}

const isReadable = (body: unknown): body is Readable =>
  typeof body === "object" && body !== null && !Buffer.isBuffer(body) && "pipe" in body;
