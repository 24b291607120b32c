import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

/** Commits files to a git repository in `dir`, which is made when it is not there. The commit's id. */
export async function commitFiles(dir: string, files: Readonly<Record<string, string>>): Promise<string> {
  const git = (...args: string[]) =>
    promisify(execFile)("git", ["-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com", ...args]);
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await writeFile(join(dir, name), text);
  }
  await git("init", "--quiet", "--initial-branch", "main");
  await git("add", "--all");
  await git("commit", "--quiet", "--message", "files");
  return (await git("rev-parse", "HEAD")).stdout.trim();
}
