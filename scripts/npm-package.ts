/** Packages of npm for another machine than this one, which `npm install` refuses. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

/** npm leaves folders with a dot alone. */
const cache = join(import.meta.dirname, "../node_modules/.cache/napd");

/**
 * The folder of a package, fetched once and kept in a cache. `npm pack` only fetches, from the registry that npm is
 * set to. Throws when the content is not the one that `integrity` (as in package-lock.json) stands for.
 */
export function npmPackage(name: string, version: string, integrity: string): string {
  const kept = join(cache, `${name.split("/").at(-1)}-${version}`);
  if (!existsSync(kept)) fetchPackage(`${name}@${version}`, integrity, kept);
  return kept;
}

function fetchPackage(spec: string, integrity: string, folder: string): void {
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, "fetch-"));
  try {
    const pack = ["pack", "--silent", "--pack-destination", work, spec];
    const printed = execFileSync("npm", pack, { cwd: work, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    const file = join(work, printed.trim());
    const found = `sha512-${createHash("sha512").update(readFileSync(file)).digest("base64")}`;
    if (found !== integrity) throw new Error(`${spec} is not what it should be: ${found}`);
    execFileSync("tar", ["-xzf", file, "-C", work]);
    renameSync(join(work, "package"), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
