import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { FastifyRequest } from "fastify";
import { AppError, messageOf } from "../base/errors.ts";
import { isName, keyOf, splitAddress } from "../base/names.ts";
import { parseTimestamp } from "../base/timestamps.ts";
import type { LogLine, LogQuery } from "../functions/backend.ts";
import type { AddResource, ApiOptions } from "./api.ts";

/** What is told without `since`, ms. */
const windowMs = 5 * 60_000;
/** What Go reads as true; everything else is false here. */
const yes = new Set(["1", "t", "T", "TRUE", "true", "True"]);

/** Output of functions, a JSON object a line: contracts/api.md §2.7. */
export function logRoutes(add: AddResource, { functions, defaultNamespace, clock, stopping, log }: ApiOptions): void {
  add("/system/logs", {
    GET: async (request, reply) => {
      const query = readQuery(request, defaultNamespace, clock.now());
      const left = new AbortController();
      const signal = AbortSignal.any([left.signal, stopping]);
      const lines = await functions.logs(query, signal);
      reply.hijack();
      const { raw: response } = reply;
      response.once("close", () => left.abort(new Error("the client has left")));
      // nobody asks again where a follower listened: a connection kept for that would only delay napd's stop
      const connection = query.follow ? { Connection: "close" } : {};
      response.writeHead(200, { "Content-Type": "application/x-ndjson", ...connection });
      response.flushHeaders();
      try {
        await send(lines, response, signal);
        response.end();
      } catch (e) {
        if (!signal.aborted) log.error({ fn: keyOf(query), err: messageOf(e) }, "logs could not be read on");
        response.destroy();
      }
    },
  });
}

/** Never asks for a line that the client is not ready for. */
async function send(lines: AsyncIterable<LogLine>, response: ServerResponse, signal: AbortSignal): Promise<void> {
  for await (const line of lines) {
    if (signal.aborted) return;
    if (!response.write(encode(line))) await once(response, "drain", { signal });
  }
}

/** The time with as many digits as are known: those behind the milliseconds order lines that came together. */
function encode({ name, namespace, instance, time, text }: LogLine): string {
  const ms = Math.floor(time);
  const micros = String(Math.floor((time - ms) * 1000)).padStart(3, "0");
  const timestamp = new Date(ms).toISOString().replace("Z", `${micros}Z`);
  return `${JSON.stringify({ name, namespace, instance, timestamp, text })}\n`;
}

/** Fails with BAD_LOG_QUERY, or FUNCTION_NOT_FOUND for what cannot be a function. */
function readQuery(request: FastifyRequest, defaultNamespace: string, now: number): LogQuery {
  const parameters = request.query as Record<string, string | string[] | undefined>;
  const last = (name: string): string => {
    const value = parameters[name];
    return (Array.isArray(value) ? value.at(-1) : value) ?? "";
  };
  const address = splitAddress(last("name"), defaultNamespace);
  const id = { name: address.name, namespace: last("namespace") || address.namespace };
  if (!isName(id.name) || !isName(id.namespace)) throw new AppError("FUNCTION_NOT_FOUND", [keyOf(id)]);
  return {
    ...id,
    instance: last("instance") || undefined,
    since: readSince(last("since"), now),
    tail: readTail(last("tail")),
    follow: yes.has(last("follow")),
  };
}

function readSince(text: string, now: number): number {
  if (text === "") return now - windowMs;
  const since = parseTimestamp(text);
  if (since === undefined)
    throw new AppError("BAD_LOG_QUERY", ["since", text, "a time of RFC 3339 such as 2026-01-31T12:00:00Z"]);
  return since > now ? now - windowMs : since;
}

function readTail(text: string): number | undefined {
  if (text === "") return undefined;
  if (!/^[+-]?\d{1,18}$/.test(text)) throw new AppError("BAD_LOG_QUERY", ["tail", text, "a whole number of lines"]);
  return Number(text) > 0 ? Number(text) : undefined;
}
