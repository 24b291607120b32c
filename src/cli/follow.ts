import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import type { Context } from "./context.ts";
import type { Subject } from "./deploy.ts";
import type { Gateway } from "./gateway.ts";

/** Between two tries when the gateway is away or does not know the function yet. */
const pauseMs = 1_000;

/** What a function writes from `since` (ms since the epoch) on, until the signal aborts; over restarts of the gateway. */
export async function* followLines(
  { signal }: Context,
  gateway: Gateway,
  { name, namespace }: Subject,
  since: number,
): AsyncGenerator<string> {
  let from = new Date(since).toISOString();
  let last = "";
  while (!signal.aborted) {
    try {
      const query = { name, namespace: namespace || undefined, follow: "true", since: from };
      const reply = await gateway.open("GET", "/system/logs", { query, timeoutMs: 0 });
      if (reply.statusCode !== 200) reply.resume();
      else
        for await (const line of createInterface({ input: reply, crlfDelay: Number.POSITIVE_INFINITY })) {
          const message = parse(line);
          if (!message || line === last) continue; // asked again, it is told again
          last = line;
          from = message.timestamp;
          yield message.text;
        }
    } catch {
      // asked again
    }
    await delay(pauseMs, undefined, { signal }).catch(() => {});
  }
}

function parse(line: string): { timestamp: string; text: string } | undefined {
  try {
    const { timestamp, text } = JSON.parse(line);
    return typeof timestamp === "string" && typeof text === "string" ? { timestamp, text } : undefined;
  } catch {
    return undefined;
  }
}
