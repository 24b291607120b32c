import { type IncomingHttpHeaders, STATUS_CODES } from "node:http";
import { Failure } from "./failure.ts";

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** The body. */
  readonly bytes: Buffer;
  readonly text: string;
}

/** What an answer must be made of: an object, a list of objects, a list of texts. */
export type Shape = "object" | "objects" | "texts";

/**
 * The JSON of an answer; anything else that came is named in one line.
 * @param where - the URL that was asked.
 * @param lists - names under which each object must have a list.
 */
export function parsed<T>(where: string, reply: Reply, shape?: Shape, lists: readonly string[] = []): T {
  let value: unknown;
  try {
    value = JSON.parse(reply.text);
  } catch {
    throw notOurs(where, reply);
  }
  // an empty list of Go
  if (value === null && (shape === "objects" || shape === "texts")) return [] as T;
  const hasLists = (v: unknown) => lists.every((name) => Array.isArray((v as Record<string, unknown>)[name]));
  if (shape && !(fits(value, shape) && [value].flat().every(hasLists)))
    throw new Failure(`${where} answered ${excerpt(reply.text)}, which is not what is asked for; ${askWhoItIs}`);
  return value as T;
}

export const notOurs = (where: string, reply: Reply): Failure =>
  new Failure(`${where} answered ${reply.status} with ${contentOf(reply)}, not as the API does; ${askWhoItIs}`);

const askWhoItIs = "is it an OpenFaaS gateway? -g or OPENFAAS_URL name another";

function fits(value: unknown, shape: Shape): boolean {
  const isObject = (v: unknown) => typeof v === "object" && v !== null && !Array.isArray(v);
  if (shape === "object") return isObject(value);
  return Array.isArray(value) && value.every((v) => (shape === "objects" ? isObject(v) : typeof v === "string"));
}

/** What the gateway said, verbatim unless it is a page for browsers, and what to do about it. */
export function refused(url: string, reply: Reply): Failure {
  const { status, headers } = reply;
  const said = reply.text.trim();
  const answered = `${url} answered ${status}${STATUS_CODES[status] ? ` ${STATUS_CODES[status]}` : ""}`;
  if (status === 401) return new Failure(`${url} does not accept these credentials: run nap login -g ${url}`);
  if (status >= 300 && status < 400 && headers.location)
    return new Failure(`${answered} and points to ${headers.location}; redirects are not followed: name it by -g`);
  if (isPage(reply) || said === "") {
    const next =
      status === 404
        ? askWhoItIs
        : status >= 502 && status <= 504
          ? "is the gateway behind it running?"
          : "its log may say why";
    return new Failure(`${answered} with ${contentOf(reply)}; ${next}`);
  }
  return new Failure(`${said.length > longest ? `${said.slice(0, longest)}…` : said} (status ${status})`);
}

/** What a 404 means: `sentence`, unless it comes with a page for browsers, from a server that is no gateway. */
export const missing = (url: string, reply: Reply, sentence: string): Failure =>
  isPage(reply) ? refused(url, reply) : new Failure(sentence);

/** Of what is shown of somebody's error. */
const longest = 4000;

const isPage = ({ headers, text }: Reply): boolean =>
  /^\s*<(!doctype|html|head|body)\b/i.test(text) || (headers["content-type"] ?? "").startsWith("text/html");

function contentOf(reply: Reply): string {
  if (reply.text.trim() === "") return "nothing more";
  if (!isPage(reply)) return excerpt(reply.text);
  const title = /<title[^>]*>([^<]*)/i.exec(reply.text)?.[1]?.trim();
  return title ? `a web page (${excerpt(title)})` : "a web page";
}

function excerpt(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return JSON.stringify(line.length > 60 ? `${line.slice(0, 59)}…` : line);
}

/** By the code of a connection's error: what it means, and what to do. */
const connectionErrors: readonly (readonly [code: RegExp, what: string | undefined, next: string])[] = [
  [/^ECONNREFUSED$/, "nothing listens there", "is it running? -g or OPENFAAS_URL name another"],
  [/^(ENOTFOUND|EAI_AGAIN)$/, "its host is not known", "is the name right? -g or OPENFAAS_URL name another"],
  [/^(ECONNRESET|EPIPE)$/, undefined, "it may want https instead of http, or have been stopped just now"],
  [/^(EPROTO|ERR_SSL_)/, "it does not speak TLS", "write http:// instead of https://"],
  [/^HPE_/, "it does not speak HTTP", "is the port right?"],
  [/ALTNAME/, "its certificate is for another name", "use that one; --tls-no-verify accepts any certificate"],
  [/EXPIRED/, "its certificate has expired", "renew it; --tls-no-verify accepts any certificate"],
  [
    /CERT|SELF_SIGNED|ISSUER|VERIFY/,
    "its certificate is of an authority that is not known here",
    "SSL_CERT_FILE names a file of authorities; --tls-no-verify accepts any certificate",
  ],
];

export function unreachable(url: string, error: Error & { code?: string }, limitMs: number): Failure {
  const isTimeout = (e: unknown) => (e as Error | undefined)?.name === "TimeoutError";
  if (isTimeout(error) || isTimeout(error.cause))
    return new Failure(`${url} has not answered within ${limitMs / 1000} s (--timeout)`);
  const known = connectionErrors.find(([code]) => code.test(error.code ?? ""));
  const why = known?.[1] ?? (error.message || error.code || "connection failed");
  return new Failure(`${url} cannot be reached: ${why}; ${known?.[2] ?? connectionErrors[0]![2]}`);
}
