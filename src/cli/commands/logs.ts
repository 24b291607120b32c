import { once } from "node:events";
import { createInterface } from "node:readline";
import { parseTimestamp } from "../../base/timestamps.ts";
import { notOurs, refused } from "../answers.ts";
import type { Context } from "../context.ts";
import { Failure, wrongUsage } from "../failure.ts";
import {
  duration,
  type GatewayFlags,
  gatewayFlags,
  namespaceFlag,
  type StackFlags,
  wholeNumber,
  yamlFlag,
} from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { coloured, forOutput, remark } from "../output.ts";
import { stackGateway } from "../stack-file.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
  follow: boolean;
  tail?: string | boolean;
  lines: number;
  since?: number;
  sinceTime?: string;
  output: string;
  name?: boolean;
  instance?: string | boolean;
  timeFormat?: string;
  json?: boolean;
}

interface Message {
  name: string;
  namespace?: string;
  instance: string;
  timestamp: string;
  text: string;
}

export const define: Define = (command, context) => {
  namespaceFlag(gatewayFlags(yamlFlag(command.argument("[function]"), "--yaml <file>")))
    .description("what a function writes; on and on unless --no-follow")
    .option("-f, --follow", "go on with what comes; this is so unless told otherwise", true)
    .option("--no-follow", "end with what is there")
    .option("-t, --tail [lines]", "at most so many lines of those that are there; =false is --no-follow")
    .option("--lines <lines>", "as --tail", wholeNumber, -1)
    .option("--since <duration>", "nothing older, such as 10m", duration)
    .option("--since-time <time>", "nothing older than this time, in RFC 3339")
    .option("-o, --output <form>", "plain, keyvalue or json", "plain")
    .option("--name", "show the function's name")
    .option("--instance [id]", "lines of this replica only; without an id show it in each line")
    .option("--time-format <form>", "rfc3339 or, for none, an empty text")
    .option("-j, --json", "as -o json")
    .action((name: string | undefined, flags: Flags) => logs(context, name, flags));
};

async function logs(context: Context, argument: string | undefined, flags: Flags): Promise<void> {
  let { tail, instance, follow, lines } = flags;
  let name = argument;
  // the original client's --tail and --instance take no value, so that the function may follow them
  if (typeof tail === "string" && !/^(-?\d+|true|false)$/.test(tail) && name === undefined) [name, tail] = [tail, true];
  if (typeof instance === "string" && name === undefined) [name, instance] = [instance, true];
  if (tail === "false") follow = false;
  else if (typeof tail === "string" && tail !== "true") lines = wholeNumber(tail);
  if (name === undefined) throw wrongUsage("whose logs? nap logs FUNCTION");
  const form = flags.json ? "json" : flags.output;
  if (!["plain", "keyvalue", "json"].includes(form)) throw wrongUsage("--output takes plain, keyvalue or json");
  if (flags.sinceTime !== undefined && parseTimestamp(flags.sinceTime) === undefined)
    throw wrongUsage(`--since-time ${flags.sinceTime}: it takes a time such as 2026-01-31T10:00:00Z`);
  const since =
    flags.sinceTime ??
    (flags.since === undefined ? undefined : `${new Date(Date.now() - flags.since).toISOString().slice(0, 19)}Z`);

  const gateway = await openGateway(context, flags, await stackGateway(context, flags));
  const reply = await gateway.open("GET", "/system/logs", {
    query: {
      name,
      namespace: flags.namespace || undefined,
      follow: String(follow),
      tail: lines === 0 ? undefined : String(lines),
      since,
      instance: typeof instance === "string" ? instance : undefined,
    },
    timeoutMs: flags.timeout ?? 0,
  });
  if (reply.statusCode !== 200) throw refused(gateway.url, await gateway.read(reply));
  if (reply.headers["content-type"]?.startsWith("text/html"))
    throw notOurs(`${gateway.url}/system/logs`, await gateway.read(reply));
  const show = { name: flags.name ?? false, instance: instance === true, time: flags.timeFormat !== "" };
  try {
    for await (const line of createInterface({ input: reply, crlfDelay: Number.POSITIVE_INFINITY }))
      for (const message of parseMessages(context, line)) {
        const flowing = context.stdout.write(`${formatted(context, message, form, show)}\n`);
        if (!flowing) await once(context.stdout, "drain", { signal: context.signal });
      }
  } catch (e) {
    if (context.signal.aborted) throw e;
    throw new Failure(`the logs broke off: ${(e as Error).message}; ask again with --since`);
  }
}

/** What a line holds: nothing, a message, or, from gateways that put no line ends, several. */
function parseMessages(context: Context, line: string): Message[] {
  if (line.trim() === "") return [];
  try {
    return [JSON.parse(line)];
  } catch {
    try {
      return JSON.parse(`[${line.replace(/\}\s*\{/g, "},{")}]`);
    } catch {
      remark(context, `not understood: ${line.slice(0, 200)}`);
      return [];
    }
  }
}

function formatted(
  context: Context,
  m: Message,
  form: string,
  show: { name: boolean; instance: boolean; time: boolean },
): string {
  const { stdout } = context;
  const text = forOutput(stdout, String(m.text ?? "").replace(/[\r\n]+$/, ""));
  const time = show.time ? m.timestamp : "";
  if (form === "json") {
    const { name, namespace = "", instance, timestamp } = m;
    return JSON.stringify({ name, namespace, instance, timestamp, text: m.text });
  }
  if (form === "keyvalue") {
    const parts = { timestamp: time, name: show.name && m.name, instance: show.instance && m.instance, text };
    return Object.entries(parts)
      .filter(([, value]) => value !== false && value !== "")
      .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
      .join(" ");
  }
  const head = [time, show.name && m.name, show.instance && `(${m.instance})`].filter(Boolean).join(" ");
  return head ? `${coloured(context, stdout, "dim", forOutput(stdout, head))} ${text}` : text;
}
