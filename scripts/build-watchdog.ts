/**
 * Compiles the watchdog with Bun and leaves in dist/:
 *
 *     fwatchdog-linux-PLATFORM      one file for images that bring its C library (x64, arm64: glibc; …-musl: musl and libstdc++)
 *     watchdog-linux-ARCHITECTURE/  the same program with a C library of its own, which runs in any image: napd mounts it
 *                                   at /opt/napd/watchdog
 *
 * For this machine only, or with `--all` for every platform. Skips what is unchanged; `--force` builds anyway. The
 * same input gives the same bytes.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { bunRuntime, type Platform, platforms, runtimeId } from "./bun-runtimes.ts";
import { type CLibrary, cLibrary } from "./c-library.ts";
import { repairVersionDefinitions } from "./elf.ts";

const root = join(import.meta.dirname, "..");
const dist = join(root, "dist");
/** Where the directory is in a function's container; the program in it knows its loader by this path. */
const mountPoint = "/opt/napd/watchdog";

/** One thing to make. */
interface Product {
  readonly target: string;
  /** Everything that goes into it. */
  readonly print: string;
  /** Makes it under another path, from which it is then renamed: tests may build at the same time. */
  make(unfinished: string): void;
}

const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

function products(all: boolean): Product[] {
  if (process.arch !== "x64" && process.arch !== "arm64")
    throw new Error(`no watchdog for the architecture ${process.arch}; x64 and arm64 are supported`);
  const compiler = bunRuntime(process.arch);
  const sources = hashOfSources();
  const architectures = all ? (["x64", "arm64"] as const) : [process.arch];
  return [
    ...(all ? platforms : [process.arch]).map((platform) => binary(platform, compiler, sources)),
    ...architectures.map((architecture) => directory(architecture, compiler, sources)),
  ];
}

function hashOfSources(): string {
  const patterns = [
    "src/watchdog/**/*.ts",
    "src/base/*.ts",
    "src/http1/*.ts",
    "scripts/build-watchdog.ts",
    "scripts/c-library.ts",
    "scripts/elf.ts",
  ];
  const hash = createHash("sha256").update(`${version}\n`);
  for (const file of globSync(patterns, { cwd: root }).sort())
    hash.update(`${file}\n`).update(readFileSync(join(root, file)));
  return hash.digest("hex");
}

function binary(platform: Platform, compiler: string, sources: string): Product {
  return {
    target: join(dist, `fwatchdog-linux-${platform}`),
    print: [sources, runtimeId(platform)].join("\n"),
    make: (unfinished) => compile(compiler, platform, bunRuntime(platform), unfinished),
  };
}

function directory(architecture: "x64" | "arm64", compiler: string, sources: string): Product {
  const library = cLibrary(architecture, compiler);
  const digests = Object.entries(library.files)
    .sort()
    .map(([name, file]) => `${name} ${createHash("sha256").update(readFileSync(file)).digest("hex")}`);
  return {
    target: join(dist, `watchdog-linux-${architecture}`),
    print: [sources, runtimeId(architecture), ...digests].join("\n"),
    make: (unfinished) => fill(unfinished, architecture, compiler, library),
  };
}

/** Any user of a container must be able to read all of it. */
function fill(folder: string, architecture: "x64" | "arm64", compiler: string, library: CLibrary): void {
  mkdirSync(folder);
  const runtime = `${folder}.bun`;
  try {
    copyFileSync(bunRuntime(architecture), runtime);
    // Before compiling: patchelf moves what it finds, and the compiled program finds its code by its place in the file.
    // An rpath, not a runpath: it wins over an image's LD_LIBRARY_PATH, which leads to another C library.
    const paths = ["--set-interpreter", `${mountPoint}/${library.loader}`, "--force-rpath", "--set-rpath", mountPoint];
    patch(runtime, paths);
    repairVersionDefinitions(runtime);
    compile(compiler, architecture, runtime, join(folder, "fwatchdog"));
  } finally {
    rmSync(runtime, { force: true });
  }
  for (const [name, file] of Object.entries(library.files)) copyFileSync(file, join(folder, name));
  for (const name of ["fwatchdog", ...Object.keys(library.files)]) chmodSync(join(folder, name), 0o755);
  chmodSync(folder, 0o755);
}

function patch(file: string, options: readonly string[]): void {
  try {
    execFileSync("patchelf", [...options, file], { stdio: ["ignore", "ignore", "inherit"] });
  } catch (e) {
    if ((e as { code?: unknown }).code !== "ENOENT") throw e;
    throw new Error("patchelf is missing; install it (Debian's package has the same name), then run this again");
  }
}

function compile(compiler: string, platform: Platform, runtime: string, outfile: string): void {
  const work = mkdtempSync(`${outfile}.`);
  try {
    // The file's name is stored in it: always the same one, in a folder of its own.
    const args = ["build", join(root, "src/watchdog/main.ts"), "--compile", "--minify", "--outfile", "fwatchdog"];
    args.push(`--target=bun-linux-${platform}`, `--compile-executable-path=${runtime}`);
    // Else Bun reads them where the watchdog starts, and images of programs keep such files there.
    args.push("--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig");
    // Bytecode halves the start (18 to 9 ms for a program on node:net); it needs the CommonJS format.
    args.push("--bytecode", "--format=cjs", `--define=FWATCHDOG_VERSION=${JSON.stringify(version)}`);
    execFileSync(compiler, args, { cwd: work, stdio: ["ignore", "ignore", "inherit"] });
    chmodSync(join(work, "fwatchdog"), 0o755);
    renameSync(join(work, "fwatchdog"), outfile);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Whether it was made anew. */
function build({ target, print, make }: Product, force: boolean): boolean {
  const stamp = `${target}.stamp`;
  if (!force && existsSync(target) && existsSync(stamp) && readFileSync(stamp, "utf8") === print) return false;
  const unfinished = `${target}.${process.pid}`;
  try {
    make(unfinished);
    replace(unfinished, target);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  writeFileSync(stamp, print);
  return true;
}

/** A directory cannot be renamed over a full one; who has the old one mounted keeps it. */
function replace(made: string, target: string): void {
  const old = `${made}.old`;
  try {
    if (existsSync(target) && statSync(target).isDirectory()) renameSync(target, old);
    renameSync(made, target);
  } catch (e) {
    // another build was quicker: what it left is as good
    if (!["ENOENT", "ENOTEMPTY", "EEXIST"].includes((e as { code?: string }).code ?? "") || !existsSync(target))
      throw e;
  } finally {
    rmSync(old, { recursive: true, force: true });
  }
}

function sizeOf(target: string): number {
  const file = statSync(target).isDirectory() ? join(target, "fwatchdog") : target;
  return statSync(file).size;
}

function main(args: readonly string[]): void {
  mkdirSync(dist, { recursive: true });
  for (const product of products(args.includes("--all"))) {
    const started = performance.now();
    const made = build(product, args.includes("--force"));
    const size = (sizeOf(product.target) / 1e6).toFixed(1);
    const time = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`dist/${basename(product.target)}: ${size} MB, ${made ? `built in ${time} s` : "unchanged"}`);
  }
}

try {
  main(process.argv.slice(2));
} catch (e) {
  console.error(`build-watchdog: ${e instanceof Error ? e.message : e}`);
  process.exitCode = 1;
}
