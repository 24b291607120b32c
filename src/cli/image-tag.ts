import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { Option } from "commander";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { findProgram, runProgram } from "./program.ts";

export const tagModes = ["latest", "sha", "branch", "describe", "digest"] as const;
export type TagMode = (typeof tagModes)[number];

/** Of every command that names images of a stack file; contracts/cli.md §2.11. */
export const tagFlag = (): Option =>
  new Option(
    "--tag <what>",
    "put into the image's tag: the commit, branch and commit, git describe; or a digest of the code",
  )
    .choices(tagModes)
    .default("latest");

/** The functions with their images tagged after the state of their code. */
export async function tagged<F extends { name: string; image: string; handler?: string }>(
  context: Context,
  functions: readonly F[],
  mode: TagMode,
): Promise<F[]> {
  if (mode === "latest") return [...functions];
  if (mode === "digest")
    return Promise.all(
      functions.map(async (f) => ({
        ...f,
        image: f.handler ? `${f.image.replace(/:[^:/]*$/, "")}:${await digestOf(context, f.handler)}` : f.image,
      })),
    );
  const suffix = await suffixOf(context, mode);
  return functions.map((f) => ({ ...f, image: f.image && `${f.image}-${suffix}` }));
}

async function suffixOf(context: Context, mode: "sha" | "branch" | "describe"): Promise<string> {
  const sha = () => git(context, "rev-parse", "--short", "HEAD");
  if (mode === "describe") return clean(await git(context, "describe", "--tags", "--always"));
  if (mode === "sha") return clean(await sha());
  return clean(`${await git(context, "rev-parse", "--symbolic-full-name", "--abbrev-ref", "HEAD")}-${await sha()}`);
}

/** Tags of images have no slashes; names of branches may. */
const clean = (text: string): string => text.replace(/[^\w.-]/g, "-");

async function git(context: Context, ...args: string[]): Promise<string> {
  const program = await findProgram(context, "git");
  if (!program) throw new Failure("--tag needs git, which is not installed");
  const { code, stdout, tail } = await runProgram(context, program, args);
  if (code !== 0) throw new Failure(`--tag: git ${args[0]}: ${tail.at(-1) ?? `code ${code}`}`);
  return stdout.trim();
}

/** MD5 over the MD5s of all files of the folder, by path: no secret depends on it, and other clients find the same. */
async function digestOf({ cwd }: Context, handler: string): Promise<string> {
  const dir = resolve(cwd, handler);
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch((e) => {
    throw new Failure(`handler ${handler} cannot be read: ${e.message}`);
  });
  const files = entries.filter((e) => e.isFile()).map((e) => relative(dir, join(e.parentPath, e.name)));
  const md5 = (data: string | Buffer) => createHash("md5").update(data).digest("hex");
  const sums = await Promise.all(files.sort().map(async (file) => md5(await readFile(join(dir, file)))));
  return md5(sums.join(""));
}
