import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Readable } from "node:stream";
import { parsed, type Reply, refused } from "../answers.ts";
import type { Context } from "../context.ts";
import { Failure } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag } from "../flags.ts";
import { type Gateway, openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { askNapd, type NapdApi } from "../napd-only.ts";
import { forOutput, print, printDone, printJson, printTable } from "../output.ts";
import { statusLines } from "../status-lines.ts";

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

type Asking = Parameters<typeof askNapd>;
const ask = (gateway: Gateway, request: Asking[2], statuses: Asking[3], options?: Asking[4]): Promise<Reply> =>
  askNapd(gateway, api, request, statuses, options);
const api: NapdApi = { path: "/system/images", without: "images are a matter of its containerd or registry" };
const read = (gateway: Gateway, reply: Reply): Image[] => parsed(gateway.url + api.path, reply, "objects");

export const define: Define = (command, context) => {
  const sub = (name: string, ...aliases: string[]) =>
    namespaceFlag(gatewayFlags(command.command(name).aliases(aliases))).option("-j, --json", "as JSON");
  const query = (flags: Flags) => ({ namespace: flags.namespace || undefined });
  const show = (images: readonly Image[], flags: Flags) => {
    if (flags.json) return printJson(context, images);
    const rows = images.map((i) => [i.name, mib(i.size), i.usedBy?.join(", ") ?? ""]);
    printTable(context, ["IMAGE", "SIZE", "USED BY"], rows);
  };

  command.description("images that a napd holds; other gateways have no such API");
  sub("list", "ls")
    .description("images with what they take and who uses them")
    .action(async (flags: Flags) => {
      const gateway = await openGateway(context, flags);
      show(read(gateway, await ask(gateway, ["GET"], [200], { query: query(flags) })), flags);
    });
  sub("import")
    .description("bring in the images of an archive: an OCI layout or what docker save writes, - for standard input")
    .argument("<file>")
    .option("--name <name>", "name of the only image, or which of several")
    .action(async (file: string, flags: Flags) => {
      const path = resolve(context.cwd, file);
      const unreadable = (e: Error) => {
        throw new Failure(`${file} cannot be read: ${e.message}`);
      };
      const size = file === "-" ? undefined : (await stat(path).catch(unreadable)).size;
      const gateway = await openGateway(context, flags);
      const source = file === "-" ? context.stdin : createReadStream(path);
      using _ = showSent(context, file, source, size);
      const reply = await gateway.send("POST", "/system/images", source, {
        query: { ...query(flags), name: flags.name },
        timeoutMs: flags.timeout ?? 0,
      });
      if (reply.status === 404 || reply.status === 405) await ask(gateway, ["GET"], [200]);
      if (reply.status !== 201) throw refused(gateway.url, reply);
      const images = read(gateway, reply);
      if (flags.json) printJson(context, images);
      else for (const { name } of images) print(context, forOutput(context.stdout, `${name} imported`));
    });
  sub("remove", "rm", "delete")
    .description("remove an image that no function uses")
    .argument("<name>")
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const absent = `there is no image ${name}; nap image list shows those that there are`;
      await ask(gateway, ["DELETE"], [202], { query: { ...query(flags), name }, absent });
      printDone(context, flags, { name, status: "removed" }, `${name} removed`);
    });
  sub("prune")
    .description("remove all images that no function uses")
    .action(async (flags: Flags) => {
      const gateway = await openGateway(context, flags);
      show(read(gateway, await ask(gateway, ["POST", "/prune"], [200], { query: query(flags) })), flags);
    });
};

/** On a terminal: how much of the archive has gone out, as long as it is held. */
function showSent(context: Context, file: string, source: Readable, size: number | undefined): Disposable | undefined {
  if (!context.stderr.isTTY) return undefined;
  const lines = statusLines(context, [file]);
  let sent = 0;
  source.on("data", (piece: Buffer) => {
    sent += piece.length;
  });
  const told = () => (sent === size ? "sent, being unpacked" : `${mib(sent)}${size ? ` of ${mib(size)}` : ""} sent`);
  const timer = setInterval(() => lines.set(file, told()), 250);
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      lines.end(file, `${mib(sent)} sent`);
    },
  };
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
