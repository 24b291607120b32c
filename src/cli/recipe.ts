import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join, resolve, sep } from "node:path";
import type { Changes } from "./compose.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { type Collected, collect, type Files } from "./pack.ts";
import { isForBuilder, type Template, type TemplateLayer } from "./templates.ts";

/** What an image without a builder is made of. */
export interface Recipe {
  readonly base: string;
  readonly changes: Changes;
  readonly files: Files;
  readonly owner: { readonly uid: number; readonly gid: number };
  /** What the watchdog runs; undefined when it serves by itself. */
  readonly process?: string;
  /** What a person may want to know of it, a sentence each. */
  readonly notes: readonly string[];
}

/** A template with a key `layer`. */
export type LayerTemplate = Template & { readonly layer: TemplateLayer };
export const hasLayer = (template: Template): template is LayerTemplate => template.layer !== undefined;

/** Where a folder of scripts goes, and as whom they run. */
const plainPath = "/home/app";
const plainUser = "1000:1000";

export interface TemplateUse {
  /** The user's code, absolute. */
  readonly handler: string;
  /** Paths that go into the handler folder as well. */
  readonly copy: readonly string[];
  /** @default the template's */
  readonly base?: string | undefined;
  /** The template's own handler files stay where the user has none, as in a build context (contracts/cli.md §4.3). */
  readonly starters: boolean;
}

/** The template with the user's code in its handler folder. */
export async function templateRecipe(
  context: Context,
  template: LayerTemplate,
  { handler, copy, base = template.layer.base, starters }: TemplateUse,
): Promise<Recipe> {
  const { path, user, environment } = template.layer;
  const files: Files = new Map();
  const top = path.slice(1);
  files.set(top, { kind: "folder" });
  const isPassedOver = (name: string) => isForBuilder(name) || (!starters && name === template.handlerFolder);
  await collect(files, template.dir, { to: top, within: [], except: isPassedOver });
  const to = `${top}/${template.handlerFolder}`;
  const within = [resolve(context.cwd)];
  // these belong to the command line, when the handler is the working directory
  const except = (name: string) => name === "build" || name === "template";
  const found = await collect(files, handler, { to, within, except });
  for (const extra of copy) await addExtra(files, context, extra, to);
  const { fprocess } = template;
  return {
    base,
    changes: { env: environment, workingDir: path, user },
    files,
    owner: ownerOf(user),
    notes: notesOf(found),
    ...(fprocess && { process: fprocess }),
  };
}

/** A folder with a process that is started in it. */
export async function folderRecipe(
  context: Context,
  folder: string,
  { base, process }: { base: string; process: string },
): Promise<Recipe> {
  const top = plainPath.slice(1);
  const files: Files = new Map([[top, { kind: "folder" }]]);
  const found = await collect(files, folder, { to: top, within: [resolve(context.cwd)] });
  const changes = { env: { HOME: plainPath }, workingDir: plainPath, user: plainUser };
  return { base, changes, files, owner: ownerOf(plainUser), process, notes: notesOf(found) };
}

/** A folder of files that the watchdog serves; nothing else is needed in the image. */
export async function siteRecipe(context: Context, folder: string, base = "scratch"): Promise<Recipe> {
  const path = `${plainPath}/public`;
  const files: Files = new Map([[path.slice(1), { kind: "folder" }]]);
  const found = await collect(files, folder, { to: path.slice(1), within: [resolve(context.cwd)] });
  const changes = { env: { mode: "static", static_path: path }, workingDir: plainPath, user: plainUser };
  return { base, changes, files, owner: ownerOf(plainUser), notes: notesOf(found) };
}

/** A path of `configuration.copy` or `--copy-extra`, at the same place below the handler folder. */
async function addExtra(files: Files, { cwd }: Context, path: string, to: string): Promise<void> {
  const source = resolve(cwd, path);
  const inside = source.startsWith(cwd.endsWith(sep) ? cwd : cwd + sep);
  if (!inside) throw new Failure(`${path}, to be copied into functions, is not below the working directory`);
  const below = `${to}/${source.slice(cwd.length).replace(/^\/+/, "")}`;
  const found = await stat(source).catch(() => {
    throw new Failure(`${path}, to be copied into functions, is not there`);
  });
  if (found.isDirectory()) await collect(files, source, { to: below, within: [cwd] });
  else files.set(below, { kind: "file", source, mode: found.mode & 0o111 ? 0o755 : 0o644, size: found.size });
}

function ownerOf(user: string): { uid: number; gid: number } {
  const [uid = 0, gid = 0] = user.split(":").map(Number);
  return { uid, gid };
}

function notesOf({ leftOut, odd }: Collected): string[] {
  const { count, by } = leftOut;
  return [
    ...(count > 0
      ? [`${count} left out by ${by}${by === ".gitignore" ? "; a .dockerignore decides instead" : ""}`]
      : []),
    ...(odd.length > 0 ? [`${odd.join(", ")}: neither files nor folders, left out`] : []),
  ];
}

/** What of a handler folder only a build can provide; undefined when it is all there. */
export async function lacks(handler: string): Promise<string | undefined> {
  const folder = basename(handler);
  const manifest = await readFile(join(handler, "package.json"), "utf8").catch(() => undefined);
  if (manifest !== undefined && !(await stat(join(handler, "node_modules")).catch(() => undefined))) {
    const { dependencies = {} } = parseManifest(manifest);
    if (Object.keys(dependencies).length > 0)
      return `${folder}/package.json has dependencies; npm install there brings them into the folder`;
  }
  const requirements = await readFile(join(handler, "requirements.txt"), "utf8").catch(() => "");
  if (/^\s*[^\s#]/m.test(requirements) && !(await readdir(handler)).some((name) => name.endsWith(".dist-info")))
    return `${folder}/requirements.txt names packages; pip install --target . there brings them into the folder`;
  return undefined;
}

function parseManifest(text: string): { dependencies?: object } {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {}; // whoever runs it will say so
  }
}
