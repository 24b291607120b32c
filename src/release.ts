import { execFile } from "node:child_process";
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

/** Which napd this is, as /system/info tells it. No field is ever empty: clients count on that. */
export interface Release {
  /** Of package.json. */
  readonly version: string;
  /** Commit that it was made from, and the first line of that commit's message; `unknown` where nobody wrote it down. */
  readonly sha: string;
  readonly commitMessage: string;
}

const unknown = "unknown";

/**
 * From `package.json` in `root`, and from `revision.json` (`{"sha", "message"}`), which a build leaves there; without
 * it, in a checkout, from git.
 */
export async function readRelease(root: string): Promise<Release> {
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const revision = await readRevision(root).catch(() => readGit(root).catch(() => undefined));
  return { version, sha: revision?.sha || unknown, commitMessage: revision?.message || unknown };
}

async function readRevision(root: string): Promise<{ sha: string; message: string }> {
  return JSON.parse(await readFile(join(root, "revision.json"), "utf8"));
}

async function readGit(root: string): Promise<{ sha: string; message: string }> {
  await access(join(root, ".git")); // not of a repository that only happens to be around
  const args = ["-c", `safe.directory=${root}`, "-C", root, "log", "-1", "--format=%H%n%s"];
  const [sha = "", message = ""] = (await promisify(execFile)("git", args, { timeout: 5000 })).stdout.split("\n");
  return { sha, message };
}
