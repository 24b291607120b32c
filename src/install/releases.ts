import { createHash } from "node:crypto";
import { constants, statfsSync } from "node:fs";
import { copyFile, link, lstat, mkdir, readdir, readFile, realpath, rename, rm, symlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AppError, systemCode } from "../base/errors.ts";
import { formatBytes } from "../base/quantities.ts";
import type { Schemas } from "./databases.ts";
import { exists, linkTarget, type Machine, runOn } from "./machine.ts";
import type { Places } from "./places.ts";

/** An unpacked release. */
export interface Release {
  readonly folder: string;
  /** VERSION-DIGEST: the digest is that of its list of files, so the same content has the same name. */
  readonly name: string;
  readonly version: string;
  /** Digests by file. */
  readonly sums: ReadonlyMap<string, string>;
  /** Of the databases that it writes. */
  readonly schemas: Schemas;
}

/** What scripts/release.ts leaves in a release: a digest and a name a line, of every file. */
const sumsFile = "SHA256SUMS";

/** Fails with INSTALL when it is none. */
export async function releaseIn(folder: string): Promise<Release> {
  const text = await readFile(join(folder, sumsFile), "utf8").catch((cause) => {
    throw new AppError(
      "INSTALL",
      [`${folder} is no unpacked release`, "make one with `npm run release`, unpack it and run install.sh in it"],
      { cause },
    );
  });
  const { version, schemas = {} } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const digest = createHash("sha256").update(text).digest("hex").slice(0, 12);
  const sums = new Map(Array.from(text.matchAll(/^([0-9a-f]{64}) {2}(.+)$/gm), ([, sum, file]) => [file!, sum!]));
  return { folder: await realpath(folder), name: `${version}-${digest}`, version, sums, schemas };
}

/** The release that a link of an installation leads to; undefined when there is none. */
export async function linkedRelease(path: string): Promise<Release | undefined> {
  const folder = await realpath(path).catch(() => undefined);
  return folder === undefined ? undefined : releaseIn(folder).catch(() => undefined);
}

/**
 * Brings a release to its folder of the installation, or leaves the one that is there. It is there as a whole or not
 * at all, whatever happens meanwhile. A file that another release has too becomes a link to it: that saves the
 * disk, and of a watchdog that stayed the same functions of both releases share the memory.
 */
export async function bringIn(machine: Machine, release: Release): Promise<Release> {
  const { places } = machine;
  const folder = join(places.releases, release.name);
  if (release.folder === folder || (await exists(folder))) return releaseIn(folder);
  await mkdir(places.releases, { recursive: true, mode: 0o755 });
  const files = [...release.sums.keys(), sumsFile];
  const known = await knownFiles(places);
  const missing = files.filter((file) => !known.has(release.sums.get(file) ?? ""));
  await needSpace(places, release, missing);
  const work = join(places.releases, `${incoming}${release.name}`);
  await rm(work, { recursive: true, force: true });
  try {
    for (const dir of new Set(files.map(dirname))) await mkdir(join(work, dir), { recursive: true, mode: 0o755 });
    for (const file of files)
      await bringFile(join(release.folder, file), join(work, file), known.get(release.sums.get(file) ?? ""));
    await runOn(machine, "sync", ["-f", work], 10 * 60_000); // else a name could be on the disk before its content
    await rename(work, folder);
  } catch (cause) {
    await rm(work, { recursive: true, force: true });
    if (systemCode(cause) === "ENOSPC") throw noSpace(places, "the release");
    if (systemCode(cause) === "ENOENT")
      throw new AppError("INSTALL", [`${release.folder} is not whole`, "unpack the archive again"], { cause });
    throw cause;
  }
  return releaseIn(folder);
}

/** Folders of releases that are being brought in. */
const incoming = ".incoming-";

/** Files of installed releases by their digests. */
async function knownFiles(places: Places): Promise<Map<string, string>> {
  const known = new Map<string, string>();
  for (const { folder, sums } of await installed(places))
    for (const [file, sum] of sums) known.set(sum, join(folder, file));
  return known;
}

async function bringFile(from: string, to: string, same: string | undefined): Promise<void> {
  if (same !== undefined && (await lstat(same)).size === (await lstat(from)).size) {
    const linked = await link(same, to).then(
      () => true,
      () => false, // too many links, or a file system without them
    );
    if (linked) return;
  }
  await copyFile(from, to, constants.COPYFILE_FICLONE);
}

/** Left free beyond what a release takes, bytes. */
const spare = 64 * 2 ** 20;

async function needSpace(places: Places, { folder }: Release, files: readonly string[]): Promise<void> {
  const sizes = await Promise.all(
    files.map((file) =>
      lstat(join(folder, file)).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  const wanted = sizes.reduce((sum, size) => sum + size, spare);
  const { bavail, bsize } = statfsSync(places.releases);
  if (bavail * bsize < wanted) throw noSpace(places, `the release, which takes ${formatBytes(wanted)}`);
}

function noSpace({ releases }: Places, what: string): AppError {
  return new AppError("INSTALL", [
    `${releases} has no room for ${what}`,
    "free some, then run this again; nothing has changed",
  ]);
}

async function installed(places: Places): Promise<Release[]> {
  const names = await readdir(places.releases).catch(() => []);
  const found = names
    .filter((name) => !name.startsWith("."))
    .map((name) => releaseIn(join(places.releases, name)).catch(() => undefined));
  return (await Promise.all(found)).filter((release) => release !== undefined);
}

/** Makes a link of an installation lead to one of its releases, in one step. */
export async function pointTo(path: string, { folder }: Release): Promise<void> {
  const target = `releases/${basename(folder)}`;
  if ((await linkTarget(path)) === target) return;
  const next = join(dirname(path), `.${basename(path)}.new`);
  await rm(next, { force: true });
  await symlink(target, next);
  await rename(next, path);
}

/** Makes a release the current one, and the one that was it the one before. */
export async function switchTo({ current, previous }: Places, release: Release): Promise<void> {
  const before = await linkedRelease(current);
  if (before?.folder === release.folder) return;
  if (before) await pointTo(previous, before);
  await pointTo(current, release);
}

/**
 * Removes releases that are neither current nor the one before, and of which no process has a folder mounted: a
 * function that was started with the watchdog of an old release keeps it. Resolves with the names of those.
 */
export async function prune(places: Places): Promise<string[]> {
  const kept = await Promise.all([places.current, places.previous].map((path) => realpath(path).catch(() => "")));
  const mounted = await mountedReleases();
  const names = await readdir(places.releases).catch(() => []);
  const old = names.filter((name) => !kept.some((folder) => basename(folder) === name)); // /opt may be a link
  for (const name of old)
    if (!mounted.has(name)) await rm(join(places.releases, name), { recursive: true, force: true });
  return old.filter((name) => mounted.has(name));
}

/** Names of releases that something is mounted from in any mount namespace, by field 4 of proc_pid_mountinfo(5). */
async function mountedReleases(): Promise<Set<string>> {
  const found = new Set<string>();
  const seen = new Set<string>();
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const namespace = await linkTarget(`/proc/${pid}/ns/mnt`).catch(() => undefined); // of a kernel thread, or ended
    if (namespace === undefined || seen.has(namespace)) continue;
    const text = await readFile(`/proc/${pid}/mountinfo`, "utf8").catch(() => "");
    if (text !== "") seen.add(namespace);
    for (const [, name] of text.matchAll(/^\d+ \d+ \S+ \S*\/releases\/([^/ ]+)\/dist\/watchdog-\S+ /gm))
      found.add(name!);
  }
  return found;
}
