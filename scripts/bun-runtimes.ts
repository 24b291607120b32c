/** The Bun runtimes that watchdogs are made of: an npm package per platform, all of one version, of known content. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { npmPackage } from "./npm-package.ts";

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

/** What tells one runtime from another: goes into fingerprints. */
export function runtimeId(platform: Platform): string {
  return `${bunVersion} ${packages[platform].integrity}`;
}

/** The Bun executable for a platform: from the installed packages, else fetched once and kept in a cache. */
export function bunRuntime(platform: Platform): string {
  const { name } = packages[platform];
  const installed = join(root, "node_modules/@oven", name);
  if (existsSync(join(installed, "bin/bun")) && versionOf(installed) === bunVersion) return join(installed, "bin/bun");
  return join(npmPackage(`@oven/${name}`, bunVersion, packages[platform].integrity), "bin/bun");
}

function versionOf(folder: string): string {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version;
}
