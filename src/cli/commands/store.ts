import type { Command } from "commander";
import type { Context } from "../context.ts";
import { deployAll } from "../deploy.ts";
import { deploymentOfFlags, type FunctionFlags, functionFlags } from "../deployment.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { forOutput, print, printJson, printTable, remark } from "../output.ts";
import {
  findInStore,
  gatewayPlatform,
  imageFor,
  platformName,
  readStore,
  type StoreFlags,
  storeBase,
} from "../store.ts";
import { type DeployFlags, deployFlags, deployOptions } from "./deploy.ts";

interface Flags extends StoreFlags {
  platform?: string;
  verbose?: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  const sub = (name: string, ...aliases: string[]) =>
    command
      .command(name)
      .aliases(aliases)
      .option("-u, --url <url>", "functions.json of the store; else OPENFAAS_STORE, else that of OpenFaaS")
      .option("--builtin", "the small store that comes with nap")
      .option("-p, --platform <name>", "x86_64, arm64 or armhf; else this machine's, for deploy the gateway's");

  const listing = (c: Command) => c.option("-v, --verbose", "descriptions in full").option("-j, --json", "as JSON");

  listing(sub("list", "ls"))
    .description("functions of the store")
    .action((flags: Flags) => list(context, flags));
  listing(sub("search").argument("<words...>", "all of them must be in its name, title, description or author"))
    .description("functions of the store that have to do with something")
    .action((words: string[], flags: Flags) => list(context, flags, words));

  sub("inspect", "describe")
    .description("a function of the store")
    .argument("<function>", "name or title")
    .option("-j, --json", "as JSON")
    .action(async (name: string, flags: Flags) => {
      const found = findInStore(await readStore(context, flags), name, platformName(flags.platform));
      if (flags.json) return printJson(context, found);
      const { title, author, description, image, fprocess, repo_url } = found;
      const single = { Name: found.name, Title: title, Author: author || "unknown", Description: description };
      for (const [key, value] of Object.entries({ ...single, Image: image, Process: fprocess, Repository: repo_url }))
        if (value) print(context, forOutput(context.stdout, `${`${key}:`.padEnd(13)}${value}`));
      const maps = { Environment: found.environment, Labels: found.labels, Annotations: found.annotations };
      for (const [heading, map] of Object.entries(maps)) {
        const items = Object.entries(map ?? {});
        if (items.length > 0) print(context, `${heading}:`);
        for (const [key, value] of items) print(context, forOutput(context.stdout, `  ${key}: ${value}`));
      }
    });

  deployFlags(functionFlags(namespaceFlag(gatewayFlags(sub("deploy").argument("<function>", "name or title")))))
    .description("deploy a function of the store")
    .action(async (name: string, flags: Flags & GatewayFlags & FunctionFlags & DeployFlags) => {
      const options = deployOptions(flags);
      const all = await readStore(context, flags);
      const gateway = await openGateway(context, flags);
      const platform = flags.platform ? platformName(flags.platform) : await gatewayPlatform(gateway);
      const found = findInStore(all, name, platform);
      await deployAll(context, gateway, [deploymentOfFlags(flags, storeBase(found))], options);
    });
};

async function list(context: Context, flags: Flags, words: readonly string[] = []): Promise<void> {
  const platform = platformName(flags.platform);
  const everything = await readStore(context, flags);
  const matching = everything.filter((f) => {
    const text = [f.name, f.title, f.description, f.author].join(" ").toLowerCase();
    return words.every((word) => text.includes(word.toLowerCase()));
  });
  const all = matching.filter((f) => imageFor(f, platform));
  if (flags.json) return printJson(context, all);
  if (all.length === 0) {
    const there = [...new Set(matching.flatMap((f) => Object.keys(f.images)))].sort();
    const next = there.length > 0 ? `; there is for ${there.join(", ")} (--platform)` : "; nap store list shows all";
    return remark(context, `nothing for ${platform}${next}`);
  }
  const short = (text: string) => (text.length > 40 ? `${text.slice(0, 39)}…` : text);
  const rows = all.map((f) => [
    f.name,
    f.author || "unknown",
    flags.verbose ? (f.description ?? f.title) : short(f.title),
  ]);
  printTable(context, ["FUNCTION", "AUTHOR", "DESCRIPTION"], rows);
}
