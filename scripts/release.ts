/**
 * Makes dist/release/napd-VERSION-linux-ARCHITECTURE.tar.gz for x64 and arm64, and SHA256SUMS beside them. Each is
 * self-contained: runtime, napd in one file, watchdogs, and what is installed on a host.
 *
 *     npm run release                          both, complete
 *     npm run release -- --arch x64            one
 *     npm run release -- --only-built          with the watchdogs that are in dist/ already; for tests
 *     npm run release -- --out FOLDER          elsewhere
 *
 * The same commit gives the same bytes.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { parseArgs } from "node:util";
import { SqliteStore } from "../src/queue/sqlite.ts";
import { readRelease } from "../src/release.ts";
import { schemaVersion } from "../src/store/state.ts";
import { bunRuntime } from "./bun-runtimes.ts";
import { npmPackage } from "./npm-package.ts";

type Architecture = "x64" | "arm64";
const architectures: readonly Architecture[] = ["x64", "arm64"];

const root = join(import.meta.dirname, "..");

/** Programs by the file that they start with. A thread is started by its file too, so it has one of its own. */
const bundles = { napd: "src/main.ts", "sqlite-worker": "src/queue/sqlite-worker.ts", nap: "src/nap.ts" };

/** Goes to its own release, whatever links lead to it, and stays there when `current` leads elsewhere later. */
const launcher = (program: string, more = "") => `#!/bin/sh
${more}root=$(dirname "$(dirname "$(readlink -f "$0")")")
exec "$root/runtime/node" "$root/lib/${program}.mjs" "$@"
`;

/** Memory is given back, see docs/decisions.md. */
const fewArenas = `MALLOC_ARENA_MAX=\${MALLOC_ARENA_MAX:-2}
export MALLOC_ARENA_MAX
`;

/** Files and folders that go along as they are. */
const copied = ["proto", "cni", "systemd", "cloud-init", "templates", "docs", "install.sh"].concat([
  "LICENSE",
  "README.md",
  "CHANGELOG.md",
]);

/** Everything that a release has, in a folder that exists and is empty. */
export async function fill(folder: string, architecture: Architecture, onlyBuilt: boolean): Promise<void> {
  for (const name of ["bin", "runtime", "lib", "dist"]) mkdirSync(join(folder, name));
  writeFileSync(join(folder, "bin/napd"), launcher("napd", fewArenas), { mode: 0o755 });
  writeFileSync(join(folder, "bin/nap"), launcher("nap"), { mode: 0o755 });
  copyFileSync(nodeRuntime(architecture), join(folder, "runtime/node"));
  for (const [name, entry] of Object.entries(bundles)) bundle(entry, join(folder, `lib/${name}.mjs`));

  const { version, sha, commitMessage } = await readRelease(root);
  const json = (value: object) => `${JSON.stringify(value, null, 2)}\n`;
  const schemas = { "state.db": schemaVersion, "queue.db": await queueSchema() };
  const description = { name: "napd", version, license: "MIT", type: "module", schemas };
  writeFileSync(join(folder, "package.json"), json(description));
  writeFileSync(join(folder, "revision.json"), json({ sha, message: commitMessage }));

  for (const name of copied)
    if (existsSync(join(root, name))) cpSync(join(root, name), join(folder, name), { recursive: true });
  copyFileSync(join(root, "src/host/oci/seccomp.json"), join(folder, "seccomp.json"));

  for (const name of [`watchdog-linux-${architecture}`, ...fwatchdogs(architecture)])
    if (!onlyBuilt || existsSync(join(root, "dist", name)))
      cpSync(join(root, "dist", name), join(folder, "dist", name), { recursive: true });
}

/** Lists every file as sha256sum does: that says whether a release is whole, and is its name among others. */
export function writeSums(folder: string): void {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((file) => relative(folder, join(file.parentPath, file.name)));
  const names = paths.filter((path) => path !== "SHA256SUMS").sort();
  const lines = names.map((name) => `${sha256(join(folder, name))}  ${name}\n`);
  writeFileSync(join(folder, "SHA256SUMS"), lines.join(""));
}

function sha256(file: string): string {
  return createHash("sha256").update(readFileSync(file)).digest("hex");
}

/** Nobody but the thread of the queue knows it. */
async function queueSchema(): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "napd-release-"));
  try {
    await using _ = await SqliteStore.open(dir);
    const db = new DatabaseSync(join(dir, "queue.db"), { readOnly: true });
    const { user_version: version } = db.prepare("PRAGMA user_version").get()!;
    db.close();
    return Number(version);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function fwatchdogs(architecture: Architecture): string[] {
  return ["", "-musl"].map((libc) => `fwatchdog-linux-${architecture}${libc}`);
}

/** The installed package, or for another architecture the one that package-lock.json names. */
function nodeRuntime(architecture: Architecture): string {
  const name = `node-linux-${architecture}`;
  const installed = join(root, "node_modules", name, "bin/node");
  if (existsSync(installed)) return installed;
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const { version, integrity } = lock.packages[`node_modules/${name}`];
  return join(npmPackage(name, version, integrity), "bin/node");
}

function bundle(entry: string, outfile: string): void {
  if (process.arch !== "x64" && process.arch !== "arm64") throw new Error("releases are made on x64 or arm64");
  const args = ["build", entry, "--target=node", `--outfile=${outfile}`];
  execFileSync(bunRuntime(process.arch), args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
  // __dirname of packages becomes a text, by which a release would tell where it was made, and differ for it
  const text = readFileSync(outfile, "utf8").replaceAll(root, "/napd");
  // one character beyond Latin-1, and V8 keeps two bytes for each of the source
  writeFileSync(
    outfile,
    text.replace(/[^\0-\xff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`),
  );
  chmodSync(outfile, 0o644);
}

/**
 * Packs a folder so that only names, contents and executable bits count: sorted, root's, of one moment, and without
 * name or time in the gzip header. `seconds` since the epoch; `level` 1 to 9.
 */
export function pack(parent: string, name: string, file: string, seconds: number, level = 6): void {
  const same = ["--sort=name", `--mtime=@${seconds}`, "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];
  const gzip = `--use-compress-program=gzip -n -${level}`;
  execFileSync("tar", [...same, "--mode=u+rwX,go+rX,go-w", gzip, "-cf", file, "-C", parent, name]);
}

function commitSeconds(): number {
  const args = ["-c", `safe.directory=${root}`, "-C", root, "log", "-1", "--format=%ct"];
  return Number(execFileSync("git", args, { encoding: "utf8" }));
}

async function main(args: string[]): Promise<void> {
  const options = {
    arch: { type: "string" },
    out: { type: "string", default: join(root, "dist/release") },
    "only-built": { type: "boolean", default: false },
  } as const;
  const { values } = parseArgs({ args, options });
  const wanted = architectures.filter((a) => values.arch === undefined || values.arch === a);
  if (wanted.length === 0) throw new Error(`--arch is one of ${architectures.join(", ")}`);
  const onlyBuilt = values["only-built"];
  if (!onlyBuilt) {
    const watchdogs = [join(root, "scripts/build-watchdog.ts"), "--all"];
    execFileSync(process.execPath, watchdogs, { stdio: ["ignore", "inherit", "inherit"] });
  }
  const out = resolve(values.out);
  mkdirSync(out, { recursive: true });
  const { version } = await readRelease(root);
  const sums: string[] = [];
  for (const architecture of wanted) {
    const name = `napd-${version}-linux-${architecture}`;
    const work = mkdtempSync(join(out, ".work-"));
    try {
      mkdirSync(join(work, name));
      await fill(join(work, name), architecture, onlyBuilt);
      writeSums(join(work, name));
      const file = join(out, `${name}.tar.gz`);
      pack(work, name, file, commitSeconds(), onlyBuilt ? 1 : 6);
      sums.push(`${sha256(file)}  ${name}.tar.gz\n`);
      console.log(file);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  writeFileSync(join(out, "SHA256SUMS"), sums.join(""));
}

if (import.meta.main)
  await main(process.argv.slice(2)).catch((e) => {
    console.error(`release: ${e instanceof Error ? e.message : e}`);
    process.exitCode = 1;
  });
