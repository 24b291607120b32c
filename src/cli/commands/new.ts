import { appendFile, mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { isName, nameRule } from "../../base/names.ts";
import { copyTree } from "../build-context.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { gatewayUrl } from "../gateway.ts";
import { referenceOf } from "../image-name.ts";
import type { Define } from "../main.ts";
import { print, printJson, remark } from "../output.ts";
import { addFunction, type Entry, newStackText } from "../stack-text.ts";
import { copyOwnTemplate, ensureTemplate } from "../template-pull.ts";
import { isDockerfile, ownTemplates, requireTemplate } from "../templates.ts";
import { printTemplates } from "./template.ts";

interface Flags {
  lang?: string;
  handler?: string;
  prefix?: string;
  gateway?: string;
  append?: string;
  yaml?: string;
  memoryLimit?: string;
  cpuLimit?: string;
  memoryRequest?: string;
  cpuRequest?: string;
  list?: boolean;
  quiet?: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  command
    .description("make a function from a template, and its entry in a stack file")
    .argument("[name]", "function")
    .option("--lang <template>", "its template; --list shows them")
    .option("--handler <dir>", "folder for its code; else its name")
    .option("-p, --prefix <prefix>", "registry and user, before the image's name; else OPENFAAS_PREFIX")
    .option("-g, --gateway <url>", "gateway in the stack file")
    .option("-a, --append <file>", "stack file that gets the function as well; else a new stack.yaml")
    .option("-f, --yaml <file>", "name of the new stack file")
    .option("--memory-limit <quantity>", "such as 128Mi")
    .option("--cpu-limit <quantity>", "such as 500m")
    .option("--memory-request <quantity>", "such as 64Mi")
    .option("--cpu-request <quantity>", "such as 100m")
    .option("--list", "show the templates that are here")
    .option("-q, --quiet", "nothing but failures")
    .option("-j, --json", "as JSON")
    .action(async (name: string | undefined, flags: Flags) => {
      if (flags.list) return printTemplates(context, flags.json ?? false);
      await create(name, flags);
    });

  async function create(name: string | undefined, flags: Flags): Promise<void> {
    if (!name) throw wrongUsage("the function's name is missing: nap new NAME --lang TEMPLATE");
    if (!isName(name)) throw wrongUsage(`"${name}" is no name of a function: it must be ${nameRule}`);
    if (!flags.lang) throw wrongUsage("--lang is missing; nap new --list shows the templates");
    if (flags.append && flags.yaml) throw wrongUsage("give --append or --yaml, not both");
    const lang = isDockerfile(flags.lang) ? "dockerfile" : flags.lang;
    const folder = relative(context.cwd, resolve(context.cwd, flags.handler ?? name));
    if (folder === "" || folder.startsWith("..")) throw wrongUsage("--handler must be a folder below this one");
    await expectNothing(folder, "give the function another name or --handler");
    const prefix = flags.prefix ?? context.env.OPENFAAS_PREFIX;
    const image = `${prefix ? `${prefix.replace(/\/+$/, "")}/` : ""}${name}:latest`;
    referenceOf(image); // names what is wrong with the prefix
    const limits = resources(flags.memoryLimit, flags.cpuLimit);
    const requests = resources(flags.memoryRequest, flags.cpuRequest);
    const entry: Entry = { name, lang, handler: `./${folder}`, image, limits, requests };
    const file = flags.append ?? flags.yaml ?? "stack.yaml";
    const text = await stackWith(file, entry, flags);

    await ensureTemplate(context, lang);
    const template = await requireTemplate(context, lang);
    // where others look for it, and where its owner may change it
    if (template.dir.startsWith(ownTemplates)) await copyOwnTemplate(context, template.name);
    const starter = join(template.dir, template.handlerFolder);
    await mkdir(join(context.cwd, folder), { recursive: true, mode: 0o700 });
    if (await stat(starter).catch(() => undefined))
      await copyTree(starter, join(context.cwd, folder), { within: [template.dir], except: [] });
    await writeFile(join(context.cwd, file), text, { mode: 0o600 }).catch(async (e) => {
      // a half is worse than nothing
      await rm(join(context.cwd, folder), { recursive: true, force: true });
      throw e;
    });
    await ignoreBuilds();
    if (flags.json) return printJson(context, { name, lang, handler: folder, image, stack: file });
    if (flags.quiet) return;
    print(context, `${name} is in ./${folder} and ${file}`);
    if (template.welcome) remark(context, template.welcome.trimEnd());
  }

  /** The stack file with the function in it, in text, so that comments and order stay. */
  async function stackWith(file: string, entry: Entry, flags: Flags): Promise<string> {
    const path = join(context.cwd, file);
    if (!flags.append) {
      const remedy = `--append ${file} puts the function into it`;
      await expectNothing(file, remedy);
      if (file === "stack.yaml") await expectNothing("stack.yml", "--append stack.yml puts the function into it");
      return newStackText(
        gatewayUrl(context, { tlsVerify: true, ...(flags.gateway && { gateway: flags.gateway }) }),
        entry,
      );
    }
    const old = await readFile(path, "utf8").catch((e: NodeJS.ErrnoException) => {
      throw new Failure(e.code === "ENOENT" ? `${file} does not exist` : `${file} cannot be read: ${e.message}`);
    });
    return addFunction(file, old, entry);
  }

  async function expectNothing(path: string, remedy: string): Promise<void> {
    if (await stat(join(context.cwd, path)).catch(() => undefined))
      throw new Failure(`${path} is there already; ${remedy}`);
  }

  /** What tools make has no place in the repository, and secrets even less. */
  async function ignoreBuilds(): Promise<void> {
    const file = join(context.cwd, ".gitignore");
    const text = await readFile(file, "utf8").catch(() => "");
    const there = new Set(text.split("\n").map((line) => line.trim().replace(/^\/|\/$/g, "")));
    const missing = ["template", "build", ".secrets"].filter((name) => !there.has(name));
    if (missing.length === 0) return;
    await appendFile(file, `${text === "" || text.endsWith("\n") ? "" : "\n"}${missing.join("\n")}\n`);
  }
};

const resources = (memory: string | undefined, cpu: string | undefined): Record<string, string> => ({
  ...(memory && { memory }),
  ...(cpu && { cpu }),
});
