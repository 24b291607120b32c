import { type Dispatcher, request } from "undici";
import { backoffMs } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError, messageOf, systemCode } from "../../base/errors.ts";
import type { Registries } from "./registries.ts";

export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent to the origin of `url` only, never to where it redirects. */
  readonly authorization?: string | undefined;
  readonly form?: URLSearchParams;
  /** How often to try in all while the answer is "not now". @default 4 */
  readonly attempts?: number;
  /** Whether a redirect may leave TLS: only right for what a digest verifies. @default false */
  readonly plainRedirects?: boolean;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Dispatcher.ResponseData["headers"];
  readonly body: Dispatcher.ResponseData["body"];
  /** Where the answer came from, behind all redirects. */
  readonly url: URL;
}

/** Nothing usable came back; the message says why. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}

/** A body ended before its time: asking for the rest may work. */
export class BrokenTransfer extends Error {
  override readonly name = "BrokenTransfer";
  readonly host: string;
  constructor(host: string, cause: unknown) {
    super(messageOf(cause), { cause });
    this.host = host;
  }
}

const headersTimeoutMs = 30_000;
/** Between two pieces of a body. */
const bodyTimeoutMs = 60_000;
const maxRedirects = 5;
const retryMinMs = 250;
const retryMaxMs = 5_000;
/** A registry may ask for more patience than a deploy has: longer Retry-After are cut to this. */
const retryAfterMaxMs = 20_000;
const redirects = new Set([301, 302, 303, 307, 308]);

/** HTTP as registries need it: redirects that do not leak logins, and patience with those that are busy. */
export class Transport {
  readonly #registries: Registries;
  readonly #clock: Clock;
  constructor(registries: Registries, clock: Clock) {
    this.#registries = registries;
    this.#clock = clock;
  }

  /**
   * Any answer below 500 but 429 is a result; its body is the caller's to read or `discard`. Throws Unreachable when
   * the last attempt had no such answer, or the signal's reason.
   */
  async send(req: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    const attempts = req.attempts ?? 4;
    for (let attempt = 1; ; attempt++) {
      const { answer, why, waitMs } = await this.#attempt(req, signal);
      if (answer) return answer;
      if (attempt >= attempts) throw new Unreachable(why);
      await this.#clock.sleep(Math.max(waitMs, backoffMs(attempt - 1, retryMinMs, retryMaxMs)), signal);
    }
  }

  async #attempt(req: HttpRequest, signal: AbortSignal): Promise<{ answer?: HttpAnswer; why: string; waitMs: number }> {
    try {
      const answer = await this.#follow(req, signal);
      if (answer.status < 500 && answer.status !== 429) return { answer, why: "", waitMs: 0 };
      const said = await reasonOf(answer);
      const why = `it answers ${answer.status}${said && `: ${said}`}${answer.status === 429 ? "; it limits how often it may be asked, and a login or a mirror has more" : ""}`;
      return { why, waitMs: retryAfterMs(answer.headers["retry-after"], this.#clock.now()) };
    } catch (e) {
      signal.throwIfAborted();
      if (e instanceof Unreachable || e instanceof AppError) throw e;
      const { why, hopeless } = explain(e);
      if (hopeless) throw new Unreachable(why, { cause: e });
      return { why, waitMs: 0 };
    }
  }

  async #follow(req: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    let url = req.url;
    for (let hops = 0; ; hops++) {
      // RFC 9110 §15.4: what was meant for one origin (Authorization) does not follow to another
      const authorization = url.origin === req.url.origin ? req.authorization : undefined;
      const answer = await request(url, {
        method: req.method,
        headers: { "user-agent": "napd", ...req.headers, ...(authorization && { authorization }) },
        ...(req.form && { body: req.form.toString() }),
        dispatcher: await this.#registries.agent(url.host),
        headersTimeout: headersTimeoutMs,
        bodyTimeout: bodyTimeoutMs,
        signal,
      });
      const location = answer.headers.location;
      if (!redirects.has(answer.statusCode) || typeof location !== "string")
        return { status: answer.statusCode, headers: answer.headers, body: answer.body, url };
      await answer.body.dump({ limit: 64 * 1024, signal });
      if (hops === maxRedirects) throw new Unreachable(`it redirects more than ${maxRedirects} times`);
      url = nextUrl(url, location, req.plainRedirects ?? false);
    }
  }
}

function nextUrl(from: URL, location: string, plainAllowed: boolean): URL {
  if (!URL.canParse(location, from.href)) throw new Unreachable("it redirects to something that is no URL");
  const url = new URL(location, from);
  const leavesTls = from.protocol === "https:" && url.protocol === "http:";
  if ((url.protocol !== "https:" && url.protocol !== "http:") || (leavesTls && !plainAllowed))
    throw new Unreachable(`it redirects to ${url.protocol}//${url.host}, which is not followed`);
  return url;
}

/** Seconds or a date, bounded; 0 when there is none. RFC 9110 §10.2.3. */
export function retryAfterMs(header: string | string[] | undefined, now: number): number {
  if (typeof header !== "string") return 0;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isNaN(ms) ? 0 : Math.min(Math.max(ms, 0), retryAfterMaxMs);
}

/** Drops a body that nobody wants, so that its connection is free again. */
export async function discard(answer: HttpAnswer): Promise<void> {
  await answer.body.dump({ limit: 64 * 1024 }).catch(() => {}); // a connection that cannot be kept is simply gone
}

/** A whole body of at most `maxBytes`; undefined when it is larger. Throws BrokenTransfer. */
export async function readBody(answer: HttpAnswer, maxBytes: number): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of answer.body as AsyncIterable<Buffer>) {
      size += part.length;
      if (size > maxBytes) return undefined;
      parts.push(part);
    }
  } catch (e) {
    throw new BrokenTransfer(answer.url.host, e);
  }
  return Buffer.concat(parts);
}

/**
 * What a registry or a token service says about its refusal, in one short line; "" when it says nothing.
 * OCI distribution spec, "Error Codes": `{"errors":[{"code","message"}]}`; token services: `{"details"}` or OAuth's.
 */
export async function reasonOf(answer: HttpAnswer): Promise<string> {
  try {
    const body = await readBody(answer, 16 * 1024);
    const json = JSON.parse(body?.toString() ?? "");
    const first = json.errors?.[0];
    const text = first?.message || first?.code || json.details || json.error_description || json.error || json.message;
    // biome-ignore lint/suspicious/noControlCharactersInRegex: a foreign text must not control anybody's terminal
    return typeof text === "string" ? text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ").slice(0, 200) : "";
  } catch {
    return ""; // a page of a proxy, or nothing
  }
}

/** A failed connection in words that name the remedy where there is one; `hopeless` when time will not mend it. */
function explain(e: unknown): { why: string; hopeless: boolean } {
  const cause = e instanceof AggregateError ? e.errors[0] : e;
  const code = systemCode(cause) ?? "";
  if (/CERT|SELF_SIGNED|UNABLE_TO_VERIFY/.test(code)) {
    const remedy = "if it has a private CA, name that in the registry's settings";
    return { why: `its certificate is not trusted (${code}); ${remedy}`, hopeless: true };
  }
  if (code === "EPROTO" || code.startsWith("ERR_SSL")) {
    const remedy = "if it is meant to be plain HTTP, say so in the registry's settings";
    return { why: `it does not speak TLS (${code}); ${remedy}`, hopeless: true };
  }
  return { why: passingTrouble[code] ?? `${messageOf(cause)}${code && ` (${code})`}`, hopeless: false };
}

const unresolved = "its name cannot be resolved; check the name and this host's DNS";
const noConnection = "it does not accept the connection in time";
const passingTrouble: Record<string, string> = {
  ENOTFOUND: unresolved,
  EAI_AGAIN: unresolved,
  ECONNREFUSED: "nothing listens there (connection refused)",
  UND_ERR_CONNECT_TIMEOUT: noConnection,
  ETIMEDOUT: noConnection,
  UND_ERR_HEADERS_TIMEOUT: `no answer within ${headersTimeoutMs / 1000} s`,
};
