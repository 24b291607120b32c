import { chmod, constants, copyFile, mkdir, readdir, realpath, rm, stat } from "node:fs/promises";
import { join, relative, resolve, sep } from "node:path";
import { isName, nameRule } from "../base/names.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { inside, isDockerfile, requireTemplate, type Template } from "./templates.ts";

/** What of a function is needed to make its context. */
export interface Buildable {
  readonly name: string;
  readonly lang?: string;
  readonly handler?: string;
}

export interface BuildContext {
  /** Absolute: `build/NAME` of the working directory. */
  readonly dir: string;
  /** `lang: dockerfile` has none. */
  readonly template?: Template;
  /** Where the user's code is in `dir`; empty for `dockerfile`. */
  readonly handlerFolder: string;
}

/** The template and the handler folder of a function, both there. */
export async function sourcesOf(
  context: Context,
  f: Buildable,
): Promise<{ template: Template | undefined; handler: string }> {
  if (!isName(f.name)) throw new Failure(`"${f.name}" is no name of a function: it must be ${nameRule}`);
  if (!f.lang) throw new Failure(`function ${f.name} has no lang; nap new --list shows the templates`);
  if (!f.handler) throw new Failure(`function ${f.name} has no handler: the folder with its code`);
  const template = isDockerfile(f.lang) ? undefined : await requireTemplate(context, f.lang);
  const handler = resolve(context.cwd, f.handler);
  const found = await stat(handler).catch(() => undefined);
  if (!found?.isDirectory()) throw new Failure(`handler ${f.handler} of function ${f.name} is no folder`);
  return { template, handler };
}

/**
 * Makes `build/NAME` anew: the template, the handler folder over the template's own, and the paths of `copy` below it;
 * contracts/cli.md §4.3. Symbolic links are followed where they stay within the folder that is copied or the working
 * directory; others would put files of the machine into an image that somebody may publish.
 */
export async function assembleContext(
  context: Context,
  f: Buildable,
  copy: readonly string[] = [],
): Promise<BuildContext> {
  const { template, handler } = await sourcesOf(context, f);
  const extras = copy.map((path) => extraPath(context, path));
  const dir = join(context.cwd, "build", f.name);
  const handlerFolder = template?.handlerFolder ?? "";
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  if (template) await copyTree(template.dir, dir, { within: [template.dir], except: [] });
  const target = join(dir, handlerFolder);
  const within = [handler, context.cwd];
  // these belong to the command line, when the handler is the working directory
  const except = [dir, join(handler, "build"), join(handler, "template")];
  await copyTree(handler, target, { within, except });
  for (const path of extras) await copyTree(join(context.cwd, path), join(target, path), { within, except: [dir] });
  await chmod(dir, isCi(context) ? 0o777 : 0o700);
  return { dir, handlerFolder, ...(template && { template }) };
}

/** In CI another user may have to build. */
const isCi = ({ env }: Context): boolean => env.CI === "true" || env.CI === "1";

/** Below the working directory, and not all of it. */
function extraPath({ cwd }: Context, path: string): string {
  return inside(relative(cwd, resolve(cwd, path)) || ".", `${path}, to be copied into functions,`);
}

export interface Bounds {
  /** Folders that links may lead into. */
  readonly within: readonly string[];
  /** Paths that are passed over. */
  readonly except: readonly string[];
}

/** A file, or a folder with all that is in it, with their modes, over what is there. */
export async function copyTree(from: string, to: string, { within, except }: Bounds): Promise<void> {
  const roots = await Promise.all(within.map((path) => realpath(path)));
  const spared = new Set(await Promise.all(except.map((path) => realpath(path).catch(() => path))));

  async function copy(source: string, target: string, above: readonly string[]): Promise<void> {
    const real = await realpath(source).catch((e: NodeJS.ErrnoException) => {
      const dangling = e.code === "ENOENT" && source !== from;
      throw new Failure(dangling ? `${source} is a link to what is not there` : `${source} cannot be read: ${e.code}`);
    });
    if (spared.has(real) && above.length > 0) return;
    if (above.includes(real)) throw new Failure(`${source} is a link to a folder that it is in`);
    if (!roots.some((root) => real === root || real.startsWith(root.endsWith(sep) ? root : root + sep)))
      throw new Failure(
        `${source} is a link to ${real}, outside of the project; copy the files, or run nap in a folder above both`,
      );
    const found = await stat(real);
    if (found.isDirectory()) {
      if (!(await stat(target).catch(() => undefined))?.isDirectory()) await rm(target, { force: true });
      await mkdir(target, { recursive: true });
      // ours to write into, whatever the original's mode is
      await chmod(target, (found.mode & 0o777) | 0o700);
      const below = [...above, real];
      const names = await readdir(real);
      // all end before the first failure is told: nothing is written behind the caller's back
      const ends = await Promise.allSettled(names.map((name) => copy(join(source, name), join(target, name), below)));
      const failed = ends.find((end) => end.status === "rejected");
      if (failed) throw failed.reason;
    } else if (found.isFile()) {
      await rm(target, { recursive: true, force: true });
      await copyFile(real, target, constants.COPYFILE_FICLONE);
      await chmod(target, found.mode & 0o7777);
    } else throw new Failure(`${source} is neither a file nor a folder`);
  }

  await copy(from, to, []);
}
