import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { request as httpRequest } from "node:http";
import { messageOf } from "../base/errors.ts";
import { fieldValue } from "../http1/head.ts";
import type { AuthConfig } from "./config.ts";
import type { Exchange } from "./http1/exchange.ts";
import { log } from "./log.ts";

/** Milliseconds that the issuer gets for an answer. */
const FETCH_TIMEOUT_MS = 5000;
/** Keys are fetched anew this often, and sooner for an unknown key, but not more often than the second number. */
const REFRESH_MS = 3_600_000;
const REFRESH_AGAIN_MS = 10_000;
/** Seconds by which two clocks may differ. */
const LEEWAY = 1;

/** Lets calls pass whose token allows them (contracts/watchdog.md §1.6). */
export interface Authorizer {
  /** False when the call has been answered: 401 or 403. */
  admit(exchange: Exchange): boolean;
}

interface KeySet {
  issuer: string;
  keys: Map<string, KeyObject>;
}

/** What a token says. */
interface Claims {
  iss?: unknown;
  aud?: unknown;
  exp?: unknown;
  nbf?: unknown;
  function?: { permissions?: unknown; audience?: unknown };
}

/** Finds the issuer and fetches its keys. Throws when that fails: without them no call could be told from another. */
export async function createAuthorizer(config: AuthConfig): Promise<Authorizer> {
  try {
    return new TokenAuthorizer(config, await fetchKeys(config.issuerUrl));
  } catch (e) {
    throw new Error(`jwt_auth: no keys from ${config.issuerUrl}: ${messageOf(e)}`, { cause: e });
  }
}

class TokenAuthorizer implements Authorizer {
  readonly #config: AuthConfig;
  #keySet: KeySet;
  #fetchedAt = performance.now();

  constructor(config: AuthConfig, keySet: KeySet) {
    this.#config = config;
    this.#keySet = keySet;
    setInterval(() => void this.#refresh(), REFRESH_MS).unref();
  }

  admit(exchange: Exchange): boolean {
    const started = performance.now();
    const value = fieldValue(exchange.request.fields, "authorization");
    if (value === "") return this.#refuse(exchange, 401, "Bearer must be present in Authorization header\n");
    let claims: Claims;
    try {
      claims = this.#verified(value.replace(/^Bearer /, ""));
    } catch (e) {
      return this.#refuse(exchange, 401, `failed to parse JWT token: ${messageOf(e)}\n`);
    }
    if (!mayCall(claims, this.#config.subject)) return this.#refuse(exchange, 403, "insufficient permissions\n");
    const seconds = ((performance.now() - started) / 1000).toFixed(6);
    exchange.request = { ...exchange.request, fields: [...exchange.request.fields, "X-Auth-Seconds", seconds] };
    return true;
  }

  #refuse(exchange: Exchange, status: number, text: string): false {
    const { method, target } = exchange.request;
    log(`${method} ${target} - ${status} ACCESS DENIED`);
    if (this.#config.debug) log(`jwt_auth: ${text.trimEnd()}`);
    const plain = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";
    const challenge = status === 401 ? "Www-Authenticate: Bearer realm=IAM function invoke\r\n" : "";
    exchange.respond(status, `${plain}${challenge}X-OpenFaaS-Internal: faas-middleware\r\n`, text);
    return false;
  }

  #verified(token: string): Claims {
    const parts = token.split(".");
    if (parts.length !== 3) throw new Error("token is malformed");
    const [head, body, signature] = parts as [string, string, string];
    const { alg, kid } = decode(head) as { alg?: unknown; kid?: unknown };
    const key = this.#keySet.keys.get(String(kid));
    if (!key) {
      void this.#refresh(REFRESH_AGAIN_MS);
      throw new Error("token is signed with an unknown key");
    }
    // The key decides on the algorithm; what the token says must agree.
    if (alg !== algorithmOf(key)) throw new Error("token has an unacceptable algorithm");
    const bytes = Buffer.from(`${head}.${body}`);
    const ok = verify("sha256", bytes, { key, dsaEncoding: "ieee-p1363" }, Buffer.from(signature, "base64url"));
    if (!ok) throw new Error("token signature is invalid");
    const claims = decode(body) as Claims;
    checkClaims(claims, this.#keySet.issuer);
    return claims;
  }

  async #refresh(notBeforeMs = 0): Promise<void> {
    if (performance.now() - this.#fetchedAt < notBeforeMs) return;
    this.#fetchedAt = performance.now();
    try {
      this.#keySet = await fetchKeys(this.#config.issuerUrl);
    } catch (e) {
      log(`Warning: jwt_auth: keys could not be fetched anew: ${messageOf(e)}`);
    }
  }
}

function decode(part: string): unknown {
  const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
  if (typeof value !== "object" || value === null) throw new Error("token is malformed");
  return value;
}

function algorithmOf(key: KeyObject): string {
  return key.asymmetricKeyType === "rsa" ? "RS256" : "ES256";
}

function checkClaims({ iss, aud, exp, nbf }: Claims, issuer: string): void {
  const now = Date.now() / 1000;
  if (iss !== issuer) throw new Error("token has invalid issuer");
  if (!listOf(aud).includes(issuer)) throw new Error("token has invalid audience");
  if (typeof exp !== "number" || now > exp + LEEWAY) throw new Error("token is expired");
  if (nbf !== undefined && (typeof nbf !== "number" || now < nbf - LEEWAY)) throw new Error("token is not valid yet");
}

function mayCall(claims: Claims, subject: string): boolean {
  const { permissions, audience } = claims.function ?? {};
  const meant = listOf(audience);
  return (meant.length === 0 || matchesAny(meant, subject)) && matchesAny(listOf(permissions), subject);
}

/** Whether a pattern, in which `*` stands for any text, is `subject` from start to end (§5, 15). */
export function matchesAny(patterns: readonly string[], subject: string): boolean {
  return patterns.some((pattern) => {
    const source = pattern.split("*").map((part) => part.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"));
    return new RegExp(`^${source.join(".*")}$`, "s").test(subject);
  });
}

function listOf(value: unknown): string[] {
  const list = Array.isArray(value) ? value : [value];
  return list.filter((item): item is string => typeof item === "string");
}

async function fetchKeys(issuerUrl: string): Promise<KeySet> {
  const found = await fetchJson(`${issuerUrl.replace(/\/+$/, "")}/.well-known/openid-configuration`);
  const { issuer, jwks_uri } = found as { issuer?: unknown; jwks_uri?: unknown };
  if (typeof issuer !== "string" || typeof jwks_uri !== "string") throw new Error("no issuer or no jwks_uri");
  const { keys } = (await fetchJson(jwks_uri)) as { keys?: unknown };
  const map = new Map<string, KeyObject>();
  for (const jwk of Array.isArray(keys) ? keys : []) addKey(map, jwk);
  return { issuer, keys: map };
}

/** Keys of other kinds than RSA and P-256 are left out: nothing here could be signed with them. */
function addKey(keys: Map<string, KeyObject>, jwk: { kid?: unknown; kty?: unknown; crv?: unknown }): void {
  if (jwk.kty === "RSA" || (jwk.kty === "EC" && jwk.crv === "P-256"))
    keys.set(String(jwk.kid), createPublicKey({ key: jwk as Record<string, string>, format: "jwk" }));
}

function fetchJson(url: string): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const send = url.startsWith("https:") ? process.getBuiltinModule("node:https").request : httpRequest;
  const headers = { "User-Agent": "openfaas-watchdog" };
  const q = send(url, { headers, signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) }, (answer) => {
    let text = "";
    answer.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
    });
    answer.on("error", reject).on("end", () => {
      if (answer.statusCode !== 200) reject(new Error(`${url} answered ${answer.statusCode}`));
      else resolve(text);
    });
  });
  q.on("error", reject).end();
  return promise.then((text) => JSON.parse(String(text)));
}
