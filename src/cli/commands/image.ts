import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { Failure } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag } from "../flags.ts";
import { openGateway, refused } from "../gateway.ts";
import type { Define } from "../main.ts";
import { forOutput, print, printJson, printTable } from "../output.ts";

interface Flags extends GatewayFlags {
  namespace?: string;
  name?: string;
  json?: boolean;
}

interface Image {
  name: string;
  namespace: string;
  digest: string;
  size: number;
  usedBy: string[];
}

export const define: Define = (command, context) => {
  const sub = (name: string, ...aliases: string[]) =>
    namespaceFlag(gatewayFlags(command.command(name).aliases(aliases))).option("-j, --json", "as JSON");
  const query = (flags: Flags) => ({ namespace: flags.namespace || undefined });
  const show = (images: readonly Image[], flags: Flags) => {
    if (flags.json) return printJson(context, images);
    const rows = images.map((i) => [i.name, `${(i.size / 2 ** 20).toFixed(1)} MiB`, i.usedBy?.join(", ") ?? ""]);
    printTable(context, ["IMAGE", "SIZE", "USED BY"], rows);
  };

  command.description("images that a napd holds; other gateways have no such API");
  sub("list", "ls")
    .description("images with what they take and who uses them")
    .action(async (flags: Flags) => {
      const gateway = await openGateway(context, flags);
      show(await gateway.get<Image[]>("/system/images", query(flags)), flags);
    });
  sub("import")
    .description("bring in the images of an archive: an OCI layout or what docker save writes, - for standard input")
    .argument("<file>")
    .option("--name <name>", "name of the only image, or which of several")
    .action(async (file: string, flags: Flags) => {
      const path = resolve(context.cwd, file);
      if (file !== "-")
        await stat(path).catch((e) => {
          throw new Failure(`${file} cannot be read: ${e.message}`);
        });
      const gateway = await openGateway(context, flags);
      const reply = await gateway.send(
        "POST",
        "/system/images",
        file === "-" ? context.stdin : createReadStream(path),
        {
          query: { ...query(flags), name: flags.name },
          timeoutMs: flags.timeout ?? 0,
        },
      );
      if (reply.status !== 201) throw refused(gateway.url, reply);
      if (flags.json) printJson(context, JSON.parse(reply.text));
      else
        for (const { name } of JSON.parse(reply.text) as Image[])
          print(context, forOutput(context.stdout, `${name} imported`));
    });
  sub("remove", "rm", "delete")
    .description("remove an image that no function uses")
    .argument("<name>")
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      await gateway.expect([202], "DELETE", "/system/images", { query: { ...query(flags), name } });
      if (flags.json) printJson(context, { name });
      else print(context, `${name} removed`);
    });
  sub("prune")
    .description("remove all images that no function uses")
    .action(async (flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const { text } = await gateway.expect([200], "POST", "/system/images/prune", { query: query(flags) });
      show(JSON.parse(text), flags);
    });
};
