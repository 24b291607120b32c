import type { Command } from "commander";
import { missing, parsed, type Reply, refused } from "../answers.ts";
import { Failure } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, pairs, repeated } from "../flags.ts";
import { type Gateway, openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { forOutput, print, printDone, printJson } from "../output.ts";

interface Flags extends GatewayFlags {
  label: string[];
  annotation: string[];
  json?: boolean;
}

interface Namespace {
  name: string;
  annotations?: Record<string, string> | null;
  labels?: Record<string, string> | null;
}

export const define: Define = (command, context) => {
  const sub = (name: string, ...aliases: string[]) =>
    gatewayFlags(command.command(name, { isDefault: name === "list" }).aliases(aliases)).option(
      "-j, --json",
      "as JSON",
    );
  const withMarks = (c: Command) =>
    repeated(repeated(c.argument("<name>"), "--label <key=value>", "label"), "--annotation <key=value>", "annotation");

  sub("list", "ls")
    .description("names of the namespaces")
    .action(async (flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const all = await gateway.get<string[]>("/system/namespaces", {}, "texts");
      if (flags.json) return printJson(context, all);
      for (const name of all) print(context, forOutput(context.stdout, name));
    });
  sub("get")
    .description("a namespace with its labels and annotations")
    .argument("<name>")
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const reply = checked(gateway, name, await gateway.request("GET", path(name)), [200]);
      const found = parsed<Namespace>(gateway.url + path(name), reply, "object");
      if (flags.json) return printJson(context, found);
      print(context, `Name: ${found.name}`);
      for (const [title, map] of [
        ["Labels", found.labels],
        ["Annotations", found.annotations],
      ] as const)
        for (const [key, value] of Object.entries(map ?? {}))
          print(context, forOutput(context.stdout, `${title}: ${key}=${value}`));
    });
  withMarks(sub("create"))
    .description("make a namespace")
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const reply = await gateway.request("POST", "/system/namespace/", { body: marked(name, flags) });
      if (reply.status === 409) throw new Failure(reply.text.trim() || `namespace ${name} exists already`);
      checked(gateway, name, reply);
      printDone(context, flags, { name, status: "created" }, `namespace ${name} created`);
    });
  withMarks(sub("update"))
    .description("replace labels and annotations of a namespace")
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      checked(gateway, name, await gateway.request("PUT", path(name), { body: marked(name, flags) }));
      printDone(context, flags, { name, status: "updated" }, `namespace ${name} updated`);
    });
  sub("remove", "rm", "delete")
    .description("remove a namespace that has no functions, with its secrets, logs and images")
    .argument("<name>")
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const body = { name, labels: { openfaas: "1" } };
      checked(gateway, name, await gateway.request("DELETE", path(name), { body }));
      printDone(context, flags, { name, status: "removed" }, `namespace ${name} removed`);
    });
};

const path = (name: string): string => `/system/namespace/${encodeURIComponent(name)}`;

/** Gateways take a namespace for one of functions by this mark. */
const marked = (name: string, flags: Flags): Namespace => {
  const sorted = (map: Record<string, string>) =>
    Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));
  return {
    name,
    annotations: sorted({ ...pairs(flags.annotation, "--annotation"), openfaas: "1" }),
    labels: sorted({ ...pairs(flags.label, "--label"), openfaas: "1" }),
  };
};

function checked(gateway: Gateway, name: string, reply: Reply, statuses: readonly number[] = [200, 201, 202]): Reply {
  if (reply.status === 404)
    throw missing(gateway.url, reply, `namespace ${name} does not exist; nap namespace list shows those that do`);
  if (!statuses.includes(reply.status)) throw refused(gateway.url, reply);
  return reply;
}
