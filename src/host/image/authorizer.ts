import { AppError } from "../../base/errors.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Credential, Credentials } from "./credentials.ts";
import type { Endpoint } from "./registries.ts";
import {
  BrokenTransfer,
  discard,
  type HttpAnswer,
  readBody,
  reasonOf,
  type Transport,
  Unreachable,
} from "./transport.ts";

interface Granted {
  readonly authorization: string;
  /** The very object it was made from: another one means that the file changed. */
  readonly credential: Credential | undefined;
}

/** Kept tokens; each is a few KiB, and a daemon rarely sees more repositories. */
const maxGranted = 500;
const maxTokenBytes = 64 * 1024;

/** Turns a registry's challenge into an Authorization header, and remembers it per repository. */
export class Authorizer {
  readonly #credentials: Credentials;
  readonly #transport: Transport;
  readonly #granted = new Map<string, Granted>();

  constructor(credentials: Credentials, transport: Transport) {
    this.#credentials = credentials;
    this.#transport = transport;
  }

  /** What worked last time, unless the login changed since. */
  async remembered(endpoint: Endpoint): Promise<string | undefined> {
    const granted = this.#granted.get(keyOf(endpoint));
    if (!granted) return undefined;
    const credential = await this.#credentials.find(endpoint.host, endpoint.repository);
    return granted.credential === credential ? granted.authorization : undefined;
  }

  /**
   * The header that answers a 401. `sent` is what the refused request carried.
   * Throws IMAGE_LOGIN_REFUSED for image `ref` when there is nothing better to send.
   */
  async answer(
    ref: string,
    endpoint: Endpoint,
    refusal: HttpAnswer,
    sent: string | undefined,
    signal: AbortSignal,
  ): Promise<string> {
    const challenges = parseChallenges(refusal.headers["www-authenticate"]);
    const credential = await this.#credentials.find(endpoint.host, endpoint.repository);
    const bearer = challenges.find((c) => c.scheme === "bearer" && c.parameters.realm);
    const authorization = bearer
      ? await this.#token(ref, endpoint, bearer, credential, signal)
      : challenges.some((c) => c.scheme === "basic") && credential?.kind === "password"
        ? basic(credential)
        : undefined;
    if (authorization === undefined || authorization === sent) throw await this.refused(ref, endpoint, refusal);
    await discard(refusal);
    this.#remember(endpoint, { authorization, credential });
    return authorization;
  }

  /** The error for a 401 or 403: says whether a login was used and where it comes from. */
  async refused(ref: string, endpoint: Endpoint, refusal: HttpAnswer): Promise<AppError> {
    const credential = await this.#credentials.find(endpoint.host, endpoint.repository);
    const { source } = this.#credentials;
    const remedy = credential
      ? `the login from ${source} was used; check it, and that it may pull this image`
      : `no login for it was found in ${source}; the image is private or does not exist, so add a login or check the name`;
    const said = await reasonOf(refusal);
    return new AppError("IMAGE_LOGIN_REFUSED", [ref, endpoint.host, `${refusal.status}${said && `: ${said}`}`, remedy]);
  }

  #remember(endpoint: Endpoint, granted: Granted): void {
    const key = keyOf(endpoint);
    this.#granted.delete(key);
    this.#granted.set(key, granted);
    if (this.#granted.size > maxGranted) this.#granted.delete(this.#granted.keys().next().value!);
  }

  /** Source: distribution's token specification; with an identity token its OAuth 2 form. */
  async #token(
    ref: string,
    endpoint: Endpoint,
    challenge: Challenge,
    credential: Credential | undefined,
    signal: AbortSignal,
  ): Promise<string> {
    const { realm = "", service, scope = `repository:${endpoint.repository}:pull` } = challenge.parameters;
    const url = realmUrl(realm, endpoint);
    const refresh = credential?.kind === "refresh";
    const fields = new URLSearchParams({ ...(service && { service }), scope });
    if (refresh) {
      for (const [k, v] of Object.entries({
        grant_type: "refresh_token",
        client_id: "napd",
        refresh_token: credential.token,
      }))
        fields.set(k, v);
    } else for (const [k, v] of fields) url.searchParams.append(k, v);

    const answer = await this.#transport.send(
      refresh
        ? { method: "POST", url, form: fields, headers: { "content-type": "application/x-www-form-urlencoded" } }
        : { method: "GET", url, authorization: credential && basic(credential) },
      signal,
    );
    if ([400, 401, 403].includes(answer.status)) throw await this.refused(ref, endpoint, answer);
    if (answer.status !== 200) {
      await discard(answer);
      throw new Unreachable(`its token service ${url.host} answers ${answer.status}`);
    }
    return `Bearer ${await tokenIn(answer)}`;
  }
}

function keyOf(endpoint: Endpoint): string {
  return `${endpoint.origin} ${endpoint.repository}`;
}

function basic(credential: Credential): string | undefined {
  if (credential.kind !== "password") return undefined;
  return `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString("base64")}`;
}

/** A registry with TLS must not talk us into sending the login over a line without. */
function realmUrl(realm: string, endpoint: Endpoint): URL {
  const url = URL.canParse(realm, endpoint.origin) ? new URL(realm, endpoint.origin) : undefined;
  if (url?.protocol !== "https:" && (url?.protocol !== "http:" || endpoint.origin.startsWith("https:")))
    throw new Unreachable(`its token service "${realm.slice(0, 200)}" is not one that may be asked`);
  return url;
}

async function tokenIn(answer: HttpAnswer): Promise<string> {
  const body = await readBody(answer, maxTokenBytes).catch((e) => {
    throw e instanceof BrokenTransfer ? new Unreachable(`its token service broke off: ${e.message}`) : e;
  });
  let token: unknown;
  try {
    const json = JSON.parse(body?.toString() ?? "");
    token = json.token || json.access_token;
  } catch {} // no JSON is as good as no token
  // Anything else could not stand in a header
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token))
    throw new Unreachable(`its token service ${answer.url.host} gives no token`);
  return token;
}
