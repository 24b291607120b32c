import { mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { copyTree } from "./build-context.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { remark } from "./output.ts";
import { findProgram, runProgram } from "./program.ts";
import type { StackFunction, TemplateSource } from "./stack.ts";
import { findStoreTemplate, readTemplateStore } from "./template-store.ts";
import { isDockerfile, isTemplateName, ownTemplates, projectTemplates, readTemplate } from "./templates.ts";

export const defaultRepository = "https://github.com/openfaas/templates.git";

export interface PullOptions {
  /** Replaces templates that are there. */
  readonly overwrite: boolean;
  /** This one only, and what its folder is to be called. */
  readonly only?: { readonly name: string; readonly as: string };
}

export interface Pulled {
  /** Names of the folders that were written. */
  readonly written: readonly string[];
  /** Those that were there and stayed. */
  readonly kept: readonly string[];
}

/**
 * Copies templates out of a git repository, or a folder that is none, into `./template`.
 * @param source - URL or path, with `#BRANCH`, `#TAG` or `#sha-COMMIT` if need be.
 */
export async function pullTemplates(context: Context, source: string, options: PullOptions): Promise<Pulled> {
  const [repository, ref] = splitRef(source);
  const local = resolve(context.cwd, repository);
  const isFolder = (await stat(local).catch(() => undefined))?.isDirectory() ?? false;
  if (!isFolder && !/^([a-z][a-z0-9+]*:\/\/|[\w.-]+@[\w.-]+:)/i.test(repository))
    throw new Failure(`"${repository}" is neither a URL of a git repository nor a folder`);
  const dir = await mkdtemp(join(context.env.TMPDIR ?? tmpdir(), "nap-"));
  try {
    const isGit = !isFolder || (await stat(join(local, ".git")).catch(() => undefined)) || (await isBare(local));
    if (!isGit) {
      if (ref) throw new Failure(`${repository} is no git repository, so it has no ${ref}`);
      return await install(context, local, source, undefined, options);
    }
    const sha = await clone(context, isFolder ? local : repository, ref, join(dir, "clone"));
    return await install(context, join(dir, "clone"), source, { repository, ref, sha }, options);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** `URL#ref`. */
function splitRef(source: string): [repository: string, ref: string | undefined] {
  const at = source.lastIndexOf("#");
  if (at < 0) return [source, undefined];
  const ref = source.slice(at + 1);
  if (!/^\w[\w./+-]*$/.test(ref)) throw new Failure(`${source}: behind # stands a branch, a tag or sha-COMMIT`);
  return [source.slice(0, at), ref];
}

const isBare = async (dir: string): Promise<boolean> =>
  (await stat(join(dir, "HEAD")).catch(() => undefined))?.isFile() ?? false;

/** The commit that was cloned. */
async function clone(context: Context, url: string, ref: string | undefined, dir: string): Promise<string> {
  const program = await findProgram(context, "git");
  if (!program) throw new Failure("templates are fetched by git, which is not installed");
  const sha = ref && /^sha-([0-9a-f]{7,40})$/.exec(ref)?.[1];
  // nobody is there to type a password into a script
  const env: Record<string, string> = context.stdin.isTTY ? {} : { GIT_TERMINAL_PROMPT: "0" };
  const git = async (...args: string[]): Promise<string> => {
    const { code, stdout, tail } = await runProgram(context, program, args, { env });
    context.signal.throwIfAborted();
    if (code !== 0) throw new Failure(`${url} cannot be fetched: ${tail.at(-1) ?? `git ended with ${code}`}`);
    return stdout.trim();
  };
  const depth = sha ? [] : ["--depth=1", ...(ref ? ["--branch", ref] : [])];
  await git("clone", "--quiet", "--config", "core.autocrlf=false", ...depth, "--", url, dir);
  if (sha) await git("-C", dir, "checkout", "--quiet", sha);
  return git("-C", dir, "rev-parse", "HEAD");
}

interface Origin {
  readonly repository: string;
  readonly ref: string | undefined;
  readonly sha: string;
}

async function install(
  context: Context,
  from: string,
  source: string,
  origin: Origin | undefined,
  { overwrite, only }: PullOptions,
): Promise<Pulled> {
  const root = join(from, "template");
  const entries = await readdir(root, { withFileTypes: true }).catch(() => []);
  const found = entries.filter((e) => e.isDirectory() && isTemplateName(e.name)).map((e) => e.name);
  if (found.length === 0) throw new Failure(`${source} has no templates: no folder template/NAME`);
  if (only && !found.includes(only.name)) throw new Failure(`${source} has no template ${only.name}`);
  const written: string[] = [];
  const kept: string[] = [];
  for (const name of only ? [only.name] : found.sort()) {
    const as = only?.as ?? name;
    const target = join(projectTemplates(context), as);
    const isThere = await stat(target).catch(() => undefined);
    if (isThere && !overwrite) kept.push(as);
    else {
      await replaceTemplate(context, join(root, name), as, origin);
      written.push(as);
    }
  }
  return { written, kept };
}

/** A template is there whole, or as it was before. */
async function replaceTemplate(context: Context, from: string, name: string, origin?: Origin): Promise<void> {
  const root = projectTemplates(context);
  await mkdir(root, { recursive: true });
  const work = await mkdtemp(join(root, ".new-"));
  try {
    const fresh = join(work, "fresh");
    await copyTree(from, fresh, { within: [from], except: [] });
    if (origin) {
      const { repository, ref = "", sha } = origin;
      const meta = {
        repository: withoutPassword(repository),
        ref_name: ref,
        sha,
        written_at: new Date().toISOString(),
      };
      await writeFile(join(fresh, "meta.json"), `${JSON.stringify(meta, null, 2)}\n`);
    }
    await rename(join(root, name), join(work, "old")).catch((e: NodeJS.ErrnoException) => {
      if (e.code !== "ENOENT") throw e;
    });
    await rename(fresh, join(root, name));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

const withoutPassword = (url: string): string => url.replace(/^([a-z+]+:\/\/)[^/@]*@/i, "$1");

/** Copies a template that comes with nap into `./template`, where other tools look for it. */
export async function copyOwnTemplate(context: Context, name: string): Promise<void> {
  await replaceTemplate(context, join(ownTemplates, name), name);
}

/**
 * Fetches what is missing of the functions' templates: from where the stack file says, else they come with nap, else
 * from the store; contracts/cli.md §4.5.
 */
export async function ensureTemplates(
  context: Context,
  functions: readonly Pick<StackFunction, "lang">[],
  sources: readonly TemplateSource[],
): Promise<void> {
  const wanted = [...new Set(functions.map((f) => f.lang))].filter((lang) => lang !== undefined);
  for (const lang of wanted.filter((l) => !isDockerfile(l))) await ensureTemplate(context, lang, sources);
}

export async function ensureTemplate(
  context: Context,
  lang: string,
  sources: readonly TemplateSource[] = [],
): Promise<void> {
  if (!isTemplateName(lang)) throw new Failure(`"${lang}" is no name of a template`);
  if (await readTemplate(projectTemplates(context), lang)) return;
  const source = sources.find((s) => s.name === lang)?.source;
  if (source) {
    remark(context, `fetching template ${lang} from ${source}`);
    await pullTemplates(context, source, { overwrite: false });
    if (await readTemplate(projectTemplates(context), lang)) return;
    throw new Failure(`${source} has no template ${lang}`);
  }
  if (await readTemplate(ownTemplates, lang)) return;
  await pullFromStore(context, lang, undefined, true);
}

/** @param wanted - `NAME`, `SOURCE/NAME`, either with `@REF`. */
export async function pullFromStore(
  context: Context,
  wanted: string,
  url: string | undefined,
  overwrite: boolean,
): Promise<Pulled> {
  const [name, ref] = wanted.split("@") as [string, string | undefined];
  const store = await readTemplateStore(context, url).catch((e) => {
    throw e instanceof Failure
      ? new Failure(`there is no template ${wanted} here, and the store cannot be asked: ${e.message}`, e.exitCode)
      : e;
  });
  const found = findStoreTemplate(store, name);
  if (!found)
    throw new Failure(
      `there is no template ${wanted}, neither here nor in the store; nap template store list shows all`,
    );
  remark(context, `fetching template ${wanted} from ${found.repo}`);
  const only = { name: found.template, as: ref ? `${found.template}@${ref}` : found.template };
  return pullTemplates(context, ref ? `${found.repo}#${ref}` : found.repo, { overwrite, only });
}
