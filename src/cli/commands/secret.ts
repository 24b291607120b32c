import { isUtf8 } from "node:buffer";
import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { missing, parsed, type Reply, refused } from "../answers.ts";
import { type Context, readInput } from "../context.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag, onOff } from "../flags.ts";
import { type Gateway, openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { forOutput, print, printDone, printJson, printTable, remark } from "../output.ts";

interface Flags extends GatewayFlags {
  namespace?: string;
  fromLiteral?: string;
  fromFile?: string;
  trim: boolean;
  replace?: boolean;
  quiet?: boolean;
  json?: boolean;
  dir: string;
}

interface Value {
  value: string;
  /** Base64 of bytes that must arrive as they are. */
  rawValue?: string;
}

export const define: Define = (command, context) => {
  const sub = (name: string, ...aliases: string[]) =>
    namespaceFlag(gatewayFlags(command.command(name).aliases(aliases))).option("-j, --json", "as JSON");
  const withValue = (c: Command) =>
    onOff(c.argument("<name>"), "trim", "take away blanks and line ends around the value")
      .option("--from-literal <value>", "value; other users of this machine can see it while nap runs")
      .option("--from-file <file>", "file with the value, byte for byte");

  withValue(sub("create"))
    .description("make a secret; its value comes from standard input, a file or the command line")
    .option("--replace", "change it if it is there")
    .action((name: string, flags: Flags) => create(context, name, flags));
  withValue(sub("update", "u"))
    .description("change a secret")
    .action(async (name: string, flags: Flags) => {
      const body = bodyOf(name, flags, await readValue(context, flags));
      const gateway = await openGateway(context, flags);
      await expect(gateway, name, [200, 201, 202], await gateway.request("PUT", "/system/secrets", { body }));
      told(context, name, flags, "updated");
    });
  sub("list", "ls")
    .description("names of the secrets")
    .option("-q, --quiet", "names only")
    .action(async (flags: Flags) => {
      const all = await list(await openGateway(context, flags), flags);
      if (flags.json) return printJson(context, all);
      if (flags.quiet) return all.forEach((s) => void print(context, forOutput(context.stdout, s.name)));
      printTable(
        context,
        ["NAME", "NAMESPACE"],
        all.map((s) => [s.name, s.namespace ?? ""]),
      );
    });
  sub("remove", "rm", "delete")
    .description("remove a secret")
    .argument("<name>")
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const reply = await gateway.request("DELETE", "/system/secrets", { body: bodyOf(name, flags) });
      await expect(gateway, name, [200, 202], reply);
      told(context, name, flags, "removed");
    });
  sub("apply")
    .description("make or change a secret of each file in a folder")
    .option("--dir <folder>", "folder", ".secrets")
    .action((flags: Flags) => apply(context, flags));
};

const bodyOf = (name: string, { namespace }: Flags, value: Partial<Value> = {}) => ({
  name,
  ...(namespace && { namespace }),
  ...value,
});

async function create(context: Context, name: string, flags: Flags): Promise<void> {
  if (!/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(name) || name.length > 253)
    throw wrongUsage(`${name} is no name for a secret: small letters, digits, - and . are`);
  const body = bodyOf(name, flags, await readValue(context, flags));
  const gateway = await openGateway(context, flags);
  const reply = await gateway.request("POST", "/system/secrets", { body });
  if (reply.status === 409 && flags.replace) {
    await expect(gateway, name, [200, 201, 202], await gateway.request("PUT", "/system/secrets", { body }));
    return told(context, name, flags, "replaced");
  }
  if (reply.status === 409) throw new Failure(`secret ${name} exists already; --replace changes it`);
  await expect(gateway, name, [200, 201, 202], reply);
  told(context, name, flags, "created");
}

const told = (context: Context, name: string, { namespace, json }: Flags, status: string): void =>
  printDone(
    context,
    { json: json ?? false },
    { name, ...(namespace && { namespace }), status },
    `secret ${name} ${status}`,
  );

async function expect(gateway: Gateway, name: string, statuses: number[], reply: Reply) {
  if (reply.status === 404)
    throw missing(gateway.url, reply, `secret ${name} does not exist; nap secret list shows those that do`);
  if (!statuses.includes(reply.status)) throw refused(gateway.url, reply);
}

async function list(gateway: Gateway, { namespace }: Flags): Promise<{ name: string; namespace?: string }[]> {
  const query = { namespace: namespace || undefined };
  const reply = await gateway.expect([200, 202], "GET", "/system/secrets", { query });
  return parsed(`${gateway.url}/system/secrets`, reply, "objects");
}

async function readValue(context: Context, { fromLiteral, fromFile, trim }: Flags): Promise<Value> {
  if (fromLiteral !== undefined && fromFile !== undefined)
    throw wrongUsage("give --from-literal or --from-file, not both");
  if (fromFile !== undefined) return fileValue(resolve(context.cwd, fromFile), trim);
  if (fromLiteral === undefined && context.stdin.isTTY)
    remark(context, "reading the value from here; end it with Ctrl-D");
  const bytes = fromLiteral === undefined ? await readInput(context) : Buffer.from(fromLiteral);
  const text = bytes.toString();
  const value = trim ? text.trim() : text;
  if (value === "") throw wrongUsage("the value is empty");
  return isUtf8(bytes) ? { value } : { value, rawValue: bytes.toString("base64") };
}

async function fileValue(file: string, trim: boolean): Promise<Value> {
  const bytes = await readFile(file).catch((e) => {
    throw new Failure(`${file} cannot be read: ${e.message}`);
  });
  if (bytes.length === 0) throw wrongUsage(`${file} is empty`);
  const text = bytes.toString();
  return { value: trim ? text.trim() : text, rawValue: bytes.toString("base64") };
}

async function apply(context: Context, flags: Flags): Promise<void> {
  const dir = resolve(context.cwd, flags.dir);
  const entries = await readdir(dir, { withFileTypes: true }).catch((e) => {
    throw new Failure(`${dir} cannot be read: ${e.message}`);
  });
  const names = entries.filter((e) => e.isFile() && !e.name.startsWith(".")).map((e) => e.name);
  if (names.length === 0) throw new Failure(`${dir} has no files`);
  const gateway = await openGateway(context, flags);
  const there = new Set((await list(gateway, flags)).map((s) => s.name));
  const done: { name: string; status: string }[] = [];
  for (const name of names.sort()) {
    const body = bodyOf(name, flags, await fileValue(join(dir, name), true));
    const first = await gateway.request(there.has(name) ? "PUT" : "POST", "/system/secrets", { body });
    const reply = first.status === 409 ? await gateway.request("PUT", "/system/secrets", { body }) : first;
    await expect(gateway, name, [200, 201, 202], reply);
    const status = there.has(name) || first.status === 409 ? "updated" : "created";
    done.push({ name, status });
    if (!flags.json) print(context, `secret ${name} ${status}`);
  }
  if (flags.json) printJson(context, done);
}
