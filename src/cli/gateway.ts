import http from "node:http";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Context } from "./context.ts";
import { defaultGateway, findLogin, normalGateway } from "./credentials.ts";
import { Failure } from "./failure.ts";
import type { GatewayFlags } from "./flags.ts";

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

export interface Reply {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

export interface Gateway {
  /** Normalised. */
  readonly url: string;
  /** The answer's head has come; its body is the caller's to read. */
  open(method: string, path: string, options?: RequestOptions): Promise<http.IncomingMessage>;
  request(method: string, path: string, options?: RequestOptions): Promise<Reply>;
  /** With a body of unknown length. */
  send(method: string, path: string, body: Readable, options?: RequestOptions): Promise<Reply>;
  /** The answer, which must have one of these statuses; the gateway's own words are in the failure otherwise. */
  expect(statuses: readonly number[], method: string, path: string, options?: RequestOptions): Promise<Reply>;
  /** What a GET answers with 200. */
  get<T>(path: string, query?: RequestOptions["query"]): Promise<T>;
}

const usualTimeoutMs = 60_000;

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
  const agent = new Agent({ ...settings, ...(secure && { rejectUnauthorized: tlsVerify }) });

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
    return new Promise((resolve, reject) => {
      const request = ask(target, { method, agent, signal, headers: sent }, resolve);
      request.once("error", (e) => reject(context.signal.aborted ? e : unreachable(url, e, limit)));
      // a failure of the connection is told by the request; one of the input ends it as well
      if (isStream) pipeline(body, request).catch((e) => request.destroy(e));
      else request.end(bytes);
    });
  }

  async function request(method: string, path: string, options: RequestOptions = {}): Promise<Reply> {
    const response = await open(method, path, options);
    const pieces: Buffer[] = [];
    try {
      for await (const piece of response) pieces.push(piece);
    } catch (e) {
      throw context.signal.aborted ? e : unreachable(url, e as Error, options.timeoutMs ?? timeoutMs);
    }
    const text = Buffer.concat(pieces).toString();
    return { status: response.statusCode!, headers: response.headers, text };
  }

  const expect: Gateway["expect"] = async (statuses, method, path, options) => {
    const reply = await request(method, path, options);
    if (!statuses.includes(reply.status)) throw refused(url, reply);
    return reply;
  };

  return {
    url,
    open,
    request,
    send: (method, path, body, options) => request(method, path, { ...options, body }),
    expect,
    get: async <T>(path: string, query?: RequestOptions["query"]) => {
      const { text } = await expect([200], "GET", path, { ...(query && { query }) });
      try {
        return JSON.parse(text) as T;
      } catch {
        throw new Failure(`${url}${path} did not answer JSON; is it an OpenFaaS gateway?`);
      }
    },
  };
}

const isReadable = (body: unknown): body is Readable =>
  typeof body === "object" && body !== null && !Buffer.isBuffer(body) && "pipe" in body;

/** What the gateway said, verbatim, and what to do about it. */
export function refused(url: string, { status, text }: Reply): Failure {
  const said = text.trim();
  if (status === 401) return new Failure(`${url} does not accept these credentials: run nap login -g ${url}`);
  return new Failure(said ? `${said} (status ${status})` : `${url} answered ${status} without a word`);
}

function unreachable(url: string, error: Error & { code?: string }, limitMs: number): Failure {
  if (error.name === "TimeoutError" || (error.cause as Error | undefined)?.name === "TimeoutError")
    return new Failure(`${url} has not answered within ${limitMs / 1000} s (--timeout)`);
  const why = error.message || error.code || "connection failed";
  const tls = /CERT|SELF_SIGNED|ISSUER/.test(error.code ?? "");
  const next = tls ? "--tls-no-verify accepts any certificate" : "is it running? -g or OPENFAAS_URL name another";
  return new Failure(`${url} cannot be reached: ${why}; ${next}`);
}
