import type { Context } from "../context.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { onOff, yamlFlag } from "../flags.ts";
import type { Define } from "../main.ts";
import { coloured, forOutput, print, printJson, printTable, remark } from "../output.ts";
import { readStack } from "../stack.ts";
import { findStackFile } from "../stack-file.ts";
import { platformName } from "../store.ts";
import { copyOwnTemplate, defaultRepository, type Pulled, pullFromStore, pullTemplates } from "../template-pull.ts";
import { findStoreTemplate, own, ownStore, readTemplateStore, type StoreTemplate } from "../template-store.ts";
import { listTemplates, ownTemplates } from "../templates.ts";

interface StoreFlags {
  url?: string;
  platform?: string;
  verbose?: boolean;
  recommended?: boolean;
  official?: boolean;
  json?: boolean;
}

interface PullFlags {
  overwrite: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  command.description("what new functions are made from, in ./template or with nap");
  const pulls = (c: Parameters<Define>[0]) =>
    onOff(c, "overwrite", "replace templates that are there").option("-j, --json", "as JSON");

  command
    .command("list")
    .alias("ls")
    .description("templates that are here")
    .option("-j, --json", "as JSON")
    .action((flags: { json?: boolean }) => printTemplates(context, flags.json ?? false));

  const pull = pulls(command.command("pull"))
    .description("fetch the templates of a git repository or a folder into ./template")
    .argument("[repository]", "URL, URL#BRANCH, URL#sha-COMMIT or a path; else OPENFAAS_TEMPLATE_URL, else OpenFaaS'");
  pull.action(async (repository: string | undefined, flags: PullFlags) => {
    if (repository === "stack") return pullStack(flags, {});
    const source = repository ?? context.env.OPENFAAS_TEMPLATE_URL ?? defaultRepository;
    tell(await pullTemplates(context, source, { overwrite: flags.overwrite }), flags);
  });
  yamlFlag(pulls(pull.command("stack")), "-f, --yaml <file>")
    .description("fetch the templates that the stack file names")
    .action((flags: PullFlags & { yaml?: string; envsubst?: boolean }) => pullStack(flags, flags));

  async function pullStack(flags: PullFlags, from: { yaml?: string }): Promise<void> {
    const file = await findStackFile(context, from.yaml);
    if (file === undefined) throw wrongUsage("there is no stack file; name one by -f");
    // its names of templates hold no variables, as clients have it
    const { templates } = await readStack(context, file, false);
    if (templates.length === 0) throw new Failure(`${file} names no templates: configuration.templates is missing`);
    const all: Pulled[] = [];
    for (const { name, source } of templates)
      all.push(
        source
          ? await pullTemplates(context, source, flags)
          : await pullFromStore(context, name, undefined, flags.overwrite),
      );
    tell({ written: all.flatMap((p) => p.written), kept: all.flatMap((p) => p.kept) }, flags);
  }

  function tell({ written, kept }: Pulled, flags: PullFlags): void {
    if (flags.json) printJson(context, { written, kept });
    for (const name of kept) remark(context, `${name} is there already and stays; --overwrite replaces it`);
    for (const name of flags.json ? [] : written) print(context, forOutput(context.stdout, `template/${name} written`));
  }

  const store = command.command("store").description("templates of a store, and those of nap");
  const inStore = (name: string, ...aliases: string[]) =>
    store
      .command(name)
      .aliases(aliases)
      .option("-u, --url <url>", "templates.json of the store; else OPENFAAS_TEMPLATE_STORE_URL, else OpenFaaS'");

  inStore("list", "ls")
    .description("templates that can be fetched")
    .option("-p, --platform <name>", "x86_64, arm64 or armhf; else all")
    .option("-r, --recommended", "recommended ones only")
    .option("-o, --official", "official ones only")
    .option("-v, --verbose", "with repositories")
    .option("-j, --json", "as JSON")
    .action(async (flags: StoreFlags) => {
      const all = [...(await ownStore()), ...(await fromStore(flags))].filter((t) => matches(t, flags));
      if (flags.json) return printJson(context, all);
      const mark = (t: StoreTemplate) => (t.recommended ? "[x]" : "[ ]");
      const rows = all.map((t) => [
        t.template,
        mark(t),
        t.source,
        t.description,
        ...(flags.verbose ? [t.repo || "comes with nap"] : []),
      ]);
      const header = ["NAME", "RECOMMENDED", "SOURCE", "DESCRIPTION", ...(flags.verbose ? ["REPOSITORY"] : [])];
      printTable(context, header, rows);
    });

  /** That the usual store is out of reach keeps nobody from what comes with nap; one that was named must answer. */
  const fromStore = (flags: StoreFlags): Promise<StoreTemplate[]> =>
    readTemplateStore(context, flags.url).catch((e) => {
      if (!(e instanceof Failure) || (flags.url ?? context.env.OPENFAAS_TEMPLATE_STORE_URL)) throw e;
      remark(context, coloured(context, context.stderr, "yellow", e.message));
      return [];
    });

  inStore("describe", "inspect")
    .description("a template of the store")
    .argument("<template>", "NAME or SOURCE/NAME")
    .option("-j, --json", "as JSON")
    .action(async (name: string, flags: StoreFlags) => {
      const found =
        findStoreTemplate(await ownStore(), name) ??
        findStoreTemplate(await readTemplateStore(context, flags.url), name);
      if (!found) throw new Failure(`the store has no template ${name}; nap template store list shows what it has`);
      if (flags.json) return printJson(context, found);
      const { template, platform, language, source, description, repo, official, recommended } = found;
      const yes = (is: boolean) => (is ? "yes" : "no");
      const lines = {
        Name: template,
        Platform: platform,
        Language: language,
        Source: source,
        Description: description,
      };
      const more = { Repository: repo, Official: yes(official), Recommended: yes(recommended) };
      for (const [key, value] of Object.entries({ ...lines, ...more }))
        if (value) print(context, forOutput(context.stdout, `${`${key}:`.padEnd(13)}${value}`));
    });

  pulls(inStore("pull"))
    .description("fetch a template of the store into ./template")
    .argument("<template>", "NAME or SOURCE/NAME, either with @BRANCH, @TAG or @sha-COMMIT")
    .action(async (name: string, flags: PullFlags & { url?: string }) => {
      const ours = flags.url === undefined && findStoreTemplate(await ownStore(), name);
      if (ours) {
        await copyOwnTemplate(context, ours.template);
        return tell({ written: [ours.template], kept: [] }, flags);
      }
      tell(await pullFromStore(context, name, flags.url, flags.overwrite), flags);
    });
};

const matches = (t: StoreTemplate, { platform, recommended, official }: StoreFlags): boolean =>
  (!platform || t.source === own || t.platform.toLowerCase() === platformName(platform).toLowerCase()) &&
  (!recommended || t.recommended) &&
  (!official || t.official);

/** The templates that `new` and `build` find. */
export async function printTemplates(context: Context, json: boolean): Promise<void> {
  const all = (await listTemplates(context)).map((t) => ({
    name: t.name,
    language: t.language,
    from: t.dir.startsWith(ownTemplates) ? own : "./template",
    withoutBuilder: t.layer !== undefined,
    ...(t.description && { description: t.description }),
  }));
  if (json) return printJson(context, all);
  const rows = all.map((t) => [t.name, t.language, t.from, t.description ?? ""]);
  printTable(context, ["NAME", "LANGUAGE", "FROM", "DESCRIPTION"], rows);
}
