import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { installationRoot } from "../installation.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { isMap, parseText, text, textList, textMap } from "./yaml.ts";

/** A folder from which functions of one language are made; contracts/cli.md §4. */
export interface Template {
  /** Name of its folder: what `lang` of a function says. */
  readonly name: string;
  /** Absolute. */
  readonly dir: string;
  /** For people: the folder's name decides. */
  readonly language: string;
  /** For people, our own key. */
  readonly description?: string;
  /** The process that the watchdog runs, where the image does not say it. */
  readonly fprocess?: string;
  /** Where the user's code goes in the build context. */
  readonly handlerFolder: string;
  readonly buildOptions: readonly BuildOption[];
  readonly welcome?: string;
  /** The build wants the user's SSH agent. */
  readonly mountSsh: boolean;
  readonly layer?: TemplateLayer;
}

/** Packages of the system that a function may ask for by a name. */
export interface BuildOption {
  readonly name: string;
  readonly packages: readonly string[];
}

/**
 * How a function is made without a builder, our own key `layer` of template.yml: the build context, without what
 * `isForBuilder` names, at `path` on top of the image `base`, run by the watchdog that napd brings.
 */
export interface TemplateLayer {
  /** Image with the language in it. */
  readonly base: string;
  /** Absolute: where the context goes, and the working directory. */
  readonly path: string;
  /** `UID:GID`: owner of the files, and whom the process runs as. */
  readonly user: string;
  /** What the template's Dockerfile sets by ENV, but for the process. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Files at the top of a context that tell builders what to do, and are not wanted in a function. */
export const isForBuilder = (name: string): boolean =>
  ["Dockerfile", ".dockerignore", "template.yml", "meta.json"].includes(name);

/** `lang: dockerfile`: the handler folder is the whole context. */
export const isDockerfile = (lang: string | undefined): boolean => lang?.toLowerCase() === "dockerfile";

/** The templates that come with nap. */
export const ownTemplates = join(installationRoot, "templates");
/** Those of the project. */
export const projectTemplates = ({ cwd }: Context): string => join(cwd, "template");

/** It becomes a path; `@` and what follows is the version that was pulled. */
export const isTemplateName = (name: string): boolean => /^\w[-\w.+]*(@[-\w.+]+)?$/.test(name);

/** The template of that name: the project's, else the one that comes with nap. */
export async function findTemplate(context: Context, lang: string): Promise<Template | undefined> {
  const name = isDockerfile(lang) ? "dockerfile" : lang;
  if (!isTemplateName(name)) throw new Failure(`"${lang}" is no name of a template`);
  for (const root of [projectTemplates(context), ownTemplates]) {
    const template = await readTemplate(root, name);
    if (template) return template;
  }
  return undefined;
}

/** As `findTemplate`, and says what to do when there is none. */
export async function requireTemplate(context: Context, lang: string): Promise<Template> {
  const template = await findTemplate(context, lang);
  if (template) return template;
  throw new Failure(
    `there is no template ${lang}: nap template pull fetches others, nap new --list shows what is here`,
  );
}

/** All of the project and of nap, by name. */
export async function listTemplates(context: Context): Promise<Template[]> {
  const all = new Map<string, Template>();
  for (const root of [ownTemplates, projectTemplates(context)])
    for (const name of (await readdir(root).catch(() => [])).filter(isTemplateName)) {
      const template = await readTemplate(root, name);
      if (template) all.set(name, template);
    }
  return [...all.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A template is a folder with a template.yml or a Dockerfile. */
export async function readTemplate(root: string, name: string): Promise<Template | undefined> {
  const dir = join(root, name);
  const file = join(dir, "template.yml");
  const yaml = await readFile(file, "utf8").catch((e: NodeJS.ErrnoException) => {
    if (e.code === "ENOENT" || e.code === "ENOTDIR") return undefined;
    throw e;
  });
  if (yaml !== undefined) return parseTemplate(name, dir, file, yaml);
  const isFolder = await stat(join(dir, "Dockerfile")).catch(() => undefined);
  return isFolder ? parseTemplate(name, dir, file, "") : undefined;
}

function parseTemplate(name: string, dir: string, file: string, yaml: string): Template {
  let value: unknown;
  try {
    value = parseText(yaml) ?? {};
  } catch (e) {
    throw new Failure(`${file}: ${(e as Error).message}`);
  }
  if (!isMap(value)) throw new Failure(`${file} is no map`);
  const [fprocess, welcome] = [text(value.fprocess), text(value.welcome_message)];
  const description = text(value.description);
  const options = Array.isArray(value.build_options) ? value.build_options : [];
  return {
    name,
    dir,
    language: text(value.language) ?? name,
    handlerFolder: inside(text(value.handler_folder) ?? "function", `${file}: handler_folder`),
    buildOptions: options.filter(isMap).map((o) => ({
      name: text(o.name) ?? "",
      packages: textList(o.packages, `${file}: packages`),
    })),
    mountSsh: value.mount_ssh === "true",
    ...(description && { description }),
    ...(fprocess && { fprocess }),
    ...(welcome && { welcome }),
    ...(isMap(value.layer) && { layer: parseLayer(value.layer, file) }),
  };
}

function parseLayer(layer: Record<string, unknown>, file: string): TemplateLayer {
  const [base, path = "/home/app", user = "1000:1000"] = [text(layer.base), text(layer.path), text(layer.user)];
  if (!base) throw new Failure(`${file}: layer.base must name an image`);
  if (!/^(\/[\w][-\w.]*)+$/.test(path)) throw new Failure(`${file}: layer.path must be an absolute path`);
  if (!/^\d+:\d+$/.test(user)) throw new Failure(`${file}: layer.user must be UID:GID in numbers`);
  return { base, path, user, environment: textMap(layer.environment, `${file}: layer.environment`) };
}

/** A path below its folder, without detours. */
export function inside(path: string, what: string): string {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (path.startsWith("/") || parts.includes("..") || parts.length === 0)
    throw new Failure(`${what} must be a path below its folder, not ${path}`);
  return parts.join("/");
}
