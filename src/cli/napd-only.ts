import { missing, type Reply, refused } from "./answers.ts";
import { Failure } from "./failure.ts";
import type { Gateway, RequestOptions } from "./gateway.ts";

/** A part of the API that OpenFaaS has not. */
export interface NapdApi {
  /** A GET of it answers 200 on every napd. */
  readonly path: string;
  /** What one has without it: "asynchronous calls cannot be seen". */
  readonly without: string;
}

/**
 * An answer of napd's own API with one of `statuses`. A 404 says that the thing is not there, in the words of
 * `absent`; on a gateway that has no such API, it says so.
 */
export async function askNapd(
  gateway: Gateway,
  { path, without }: NapdApi,
  [method, rest = ""]: readonly [method: string, rest?: string],
  statuses: readonly number[],
  options: RequestOptions & { absent?: string } = {},
): Promise<Reply> {
  const reply = await gateway.request(method, path + rest, options);
  if (statuses.includes(reply.status)) return reply;
  if (reply.status !== 404 && reply.status !== 405) throw refused(gateway.url, reply);
  const probe = method === "GET" && rest === "" ? reply : await gateway.request("GET", path);
  if (probe.status === 404 || probe.status === 405)
    throw new Failure(`${gateway.url} has no ${path}: it is another gateway than napd, or an older one; ${without}`);
  throw options.absent === undefined || reply.status === 405
    ? refused(gateway.url, reply)
    : missing(gateway.url, reply, options.absent);
}
