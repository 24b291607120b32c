/** The Bun runtimes that watchdogs are made of: an npm package per platform, all of one version, of known content. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

export type Platform = "x64" | "arm64" | "x64-musl" | "arm64-musl";

const bunVersion = "1.4.5";

const packages: Record<Platform, { name: string; integrity: string }> = {
  x64: {
    name: "bun-linux-x64",
    integrity: "sha512-IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g==",
  },
  arm64: {
    name: "bun-linux-aarch64",
    integrity: "sha512-4BXmsSKnjOrlGWqZV4x/oWa7AVoR+B6lCXddMzOAXBIm3t50eslg9wb66gmtW1AamEQ1l1CDvmmruysEhqOWMg==",
  },
  "x64-musl": {
    name: "bun-linux-x64-musl",
    integrity: "sha512-10QoW/YfTgnURaGEaHpJCiXjLI2e5iTtfVDaA5JKcyUzaa1cq6cVUY9/Uq5XkYzvtRjHLRe9Oj/lTDIQcxy8HQ==",
  },
  "arm64-musl": {
    name: "bun-linux-aarch64-musl",
    integrity: "sha512-XCNc+WvvMAdNNb+OWTogpy+N9wm62fkVeEVLb6how0RZhW5LPi6c7BlkeVCuWps7XjEl2saFpHFa20/1E+PAHg==",
  },
};

export const platforms = Object.keys(packages) as Platform[];

const root = join(import.meta.dirname, "..");
/** npm leaves folders with a dot alone. */
const cache = join(root, "node_modules/.cache/napd");

/** What tells one runtime from another: goes into fingerprints. */
export function runtimeId(platform: Platform): string {
  return `${bunVersion} ${packages[platform].integrity}`;
}

/** The Bun executable for a platform: from the installed packages, else fetched once and kept in a cache. */
export function bunRuntime(platform: Platform): string {
  const { name } = packages[platform];
  const installed = join(root, "node_modules/@oven", name);
  if (existsSync(join(installed, "bin/bun")) && versionOf(installed) === bunVersion) return join(installed, "bin/bun");
  const kept = join(cache, `${name}-${bunVersion}`);
  if (!existsSync(kept)) fetchRuntime(platform, kept);
  return join(kept, "bin/bun");
}

function versionOf(folder: string): string {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version;
}

/** `npm install` refuses a package for another machine; `npm pack` only fetches, from the registry that npm is set to. */
function fetchRuntime(platform: Platform, folder: string): void {
  const { name, integrity } = packages[platform];
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, "fetch-"));
  try {
    const pack = ["pack", "--silent", "--pack-destination", work, `@oven/${name}@${bunVersion}`];
    const file = join(
      work,
      execFileSync("npm", pack, { cwd: work, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim(),
    );
    const found = `sha512-${createHash("sha512").update(readFileSync(file)).digest("base64")}`;
    if (found !== integrity) throw new Error(`@oven/${name}@${bunVersion} is not what it should be: ${found}`);
    execFileSync("tar", ["-xzf", file, "-C", work]);
    renameSync(join(work, "package"), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
