import type { IncomingMessage } from "node:http";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { AppError, messageOf } from "../base/errors.ts";
import { type Guard, type HostAddress, unbracketed } from "./guard.ts";
import type { Result } from "./retry.ts";

/** Ms that a callback's receiver may be silent. */
const silenceMs = 60_000;

/** Ms that the rest of its answer may take, which keeps the connection from being reset. */
const answerMs = 1000;

/**
 * Posts a result, to an address that the guard has seen; a redirect is not followed, it is an answer like any other.
 * Fails with CALLBACK_REFUSED or CALLBACK_FAILED.
 */
export async function postCallback(
  guard: Guard,
  url: URL,
  headers: readonly string[],
  body: Readable,
  signal: AbortSignal,
): Promise<Result> {
  const addresses = await guard.addressesOf(url.hostname);
  const request = url.protocol === "https:" ? httpsRequest : httpRequest;
  const auth = url.username === "" ? [] : ["Authorization", basic(url)];
  const [{ address, family }] = addresses as [HostAddress];
  const req = request({
    method: "POST",
    host: unbracketed(url.hostname),
    port: url.port || (url.protocol === "https:" ? 443 : 80),
    path: `${url.pathname}${url.search}`,
    headers: ["Host", url.host, ...auth, ...headers],
    agent: false,
    signal,
    lookup: (_host, options, done) => (options.all ? done(null, addresses) : done(null, address, family)),
  });
  req.setTimeout(silenceMs, () => req.destroy(new Error(`no answer for ${silenceMs / 1000} s`)));
  try {
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      req.once("response", resolve);
      req.on("error", reject);
    });
    // an answer before the end of the body may cut it off
    const [res] = await Promise.all([answered, pipeline(body, req).catch(() => {})]);
    res.on("error", () => {});
    res.resume();
    const timer = setTimeout(() => res.destroy(), answerMs); // nobody reads it, however long it is
    res.once("close", () => clearTimeout(timer));
    return { status: res.statusCode!, isInternal: false, retryAfter: res.headers["retry-after"] };
  } catch (e) {
    throw new AppError("CALLBACK_FAILED", [url.host, messageOf(e)], { cause: e });
  }
}

function basic({ username, password }: URL): string {
  return `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString("base64")}`;
}
