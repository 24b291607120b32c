import { createHmac } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { pipeline } from "node:stream/promises";
import { type Context, readInput } from "../context.ts";
import { Failure, wrongUsage } from "../failure.ts";
import {
  duration,
  type GatewayFlags,
  gatewayFlags,
  namespaceFlag,
  repeated,
  type StackFlags,
  yamlFlag,
} from "../flags.ts";
import { type Gateway, openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { bodyAsJson, forOutput, print, printJson, remark } from "../output.ts";
import { findStackFile } from "../stack-file.ts";
import { publicName } from "../status.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
  method: string;
  contentType: string;
  query: string[];
  header: string[];
  async?: boolean;
  wait?: boolean;
  waitTimeout: number;
  json?: boolean;
  data?: string;
  sign?: string;
  key?: string;
}

const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

export const define: Define = (command, context) => {
  namespaceFlag(gatewayFlags(yamlFlag(command.argument("<function>"), "-f, --yaml <file>")))
    .description("call a function with standard input; its answer goes to standard output")
    .option("-m, --method <method>", methods.join(", "), "POST")
    .option("--content-type <type>", "of the body", "text/plain")
    .option("-a, --async", "have it called later, by the queue; the call's id goes to standard output")
    .option("--wait", "with --async: wait for the result and show it; on napd alone")
    .option("--wait-timeout <duration>", "how long to wait", duration, 120_000)
    .option("-j, --json", "status, headers and body as JSON")
    .option("-d, --data <text>", "body, instead of standard input")
    .option("--sign <header>", "header for the body's HMAC-SHA256; needs --key")
    .option("--key <key>", "key of --sign");
  repeated(command, "--query <key=value>", "parameter of the query");
  repeated(command, "-H, --header <header>", "Name: value, or name=value");
  command.action((name: string, flags: Flags) => invoke(context, name, flags));
};

async function invoke(context: Context, name: string, flags: Flags): Promise<void> {
  const method = flags.method.toUpperCase();
  if (!methods.includes(method)) throw wrongUsage(`--method ${flags.method}: it takes ${methods.join(", ")}`);
  if (flags.wait && !flags.async) throw wrongUsage("--wait needs --async; without it invoke waits anyway");
  if ((flags.sign === undefined) !== (flags.key === undefined)) throw wrongUsage("--sign and --key go together");
  const query = queryOf(flags.query);
  const headers: Record<string, string | string[]> = { "Content-Type": flags.contentType };
  for (const [key, value] of flags.header.map(parseHeader)) {
    const same = Object.keys(headers).find((k) => k.toLowerCase() === key.toLowerCase());
    // what is said twice is sent twice, but the default gives way
    if (same === "Content-Type") delete headers[same];
    if (same && same !== "Content-Type") headers[same] = [headers[same]!, value].flat();
    else headers[key] = value;
  }
  const { gateway, namespace } = await target(context, name, flags);
  const body = await bodyOf(context, method, flags);
  if (flags.sign) headers[flags.sign] = `sha256=${createHmac("sha256", flags.key!).update(body).digest("hex")}`;
  const path = `/${flags.async ? "async-function" : "function"}/${publicName(name, namespace)}${query && `?${query}`}`;
  // how long a function may take is for its gateway to say
  const timeoutMs = flags.timeout ?? 0;
  const reply = await gateway.open(method, path, { body, headers, anonymous: true, timeoutMs });
  const status = reply.statusCode!;
  if (flags.async && status === 202) return accepted(context, gateway, reply, flags);
  if (flags.json) {
    const { bytes, headers: received } = await gateway.read(reply);
    printJson(context, { status, headers: received, ...bodyAsJson(bytes) });
  } else
    await pipeline(reply, context.stdout, { end: false }).catch((e) => {
      throw context.signal.aborted ? e : new Failure(`the answer of ${name} broke off: ${e.message}`);
    });
  if (status === 202) remark(context, "accepted (status 202)");
  if (status < 200 || status > 299) throw new Failure(`${name} answered ${status} ${reply.statusMessage ?? ""}`.trim());
}

/** The call is in the queue. */
async function accepted(context: Context, gateway: Gateway, reply: IncomingMessage, flags: Flags): Promise<void> {
  reply.resume();
  const id = reply.headers["x-call-id"]?.toString();
  if (flags.wait) {
    if (!id) throw new Failure(`${gateway.url} gave the call no id: there is no way to ask for its result`);
    const { showResult, waitForResult } = await import("../queue.ts");
    return showResult(context, id, await waitForResult(context, gateway, id, flags.waitTimeout), flags);
  }
  if (flags.json) return printJson(context, { status: 202, callId: id });
  if (id) print(context, forOutput(context.stdout, id));
  if (context.stderr.isTTY || !id) remark(context, "accepted: the queue makes the call");
}

const queryOf = (all: readonly string[]): string =>
  new URLSearchParams(
    all
      .map((pair): [string, string] => {
        const at = pair.indexOf("=");
        if (at < 1) throw wrongUsage(`--query ${pair}: it takes KEY=VALUE`);
        return [pair.slice(0, at), pair.slice(at + 1)];
      })
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
  ).toString();

/** `Name: value`, or `name=value` where `=` comes before any colon. */
function parseHeader(text: string): [string, string] {
  const [, name, value] = /^([\w!#$%&'*+.^`|~-]+?)\s*[:=]\s*(.*)$/s.exec(text) ?? [];
  if (name === undefined) throw wrongUsage(`--header ${text}: it takes "Name: value"`);
  return [name, value!];
}

/** The gateway, and the namespace that the flag or the stack file gives the function. */
async function target(context: Context, name: string, flags: Flags): Promise<{ gateway: Gateway; namespace?: string }> {
  const file = await findStackFile(context, flags.yaml);
  const stack = file && (await (await import("../stack.ts")).readStack(context, file, flags.envsubst));
  const namespace = flags.namespace || (stack ? stack.functions.find((f) => f.name === name)?.namespace : undefined);
  const gateway = await openGateway(context, flags, stack ? stack.gateway : undefined);
  return { gateway, ...(namespace && { namespace }) };
}

async function bodyOf(context: Context, method: string, { data }: Flags): Promise<Buffer> {
  if (data !== undefined) return Buffer.from(data);
  if (context.stdin.isTTY) {
    if (method === "GET" || method === "HEAD") return Buffer.alloc(0);
    remark(context, "reading the body from here; end it with Ctrl-D");
  }
  return readInput(context);
}
