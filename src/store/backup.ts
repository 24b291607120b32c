import { randomUUID } from "node:crypto";
import { createWriteStream, type Dirent } from "node:fs";
import { type FileHandle, mkdtemp, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { AppError, messageOf, systemCode } from "../base/errors.ts";
import { isName, isSecretName } from "../base/names.ts";
import { tarEnd, tarHeader, tarPadding } from "../base/tar.ts";
import { schemaVersion } from "./state.ts";

/** What a backup says of itself: the first file in it. */
export interface BackupManifest {
  readonly format: typeof backupFormat;
  /** Version of the schema of `state.db`. */
  readonly schema: number;
  /** Version of napd. */
  readonly napd: string;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly functions: number;
  readonly secrets: number;
  /** Which of `backupItems` are in it: what is not shall not be there after a restore either. */
  readonly items: readonly string[];
}

export const backupFormat = 1;
export const manifestFile = "napd-backup.json";
/** What a backup holds of the data directory. */
export const backupItems = ["state.db", "secrets", "credentials", "docker-config.json"] as const;

export interface BackupSource {
  dataDir: string;
  /** Logins of registries; need not exist. */
  loginsFile: string;
  /** Of napd. */
  version: string;
  now: number;
}

/** A file on its way into the archive. */
interface Part {
  readonly name: string;
  readonly path: string;
}

/**
 * Writes a consistent copy of the desired state to `file`, or to `stdout` for "-": a gzipped tar file that only its
 * owner can read, there as a whole or not at all. napd may run meanwhile. Fails with BACKUP.
 */
export async function writeBackup(source: BackupSource, file: string, stdout: Writable): Promise<BackupManifest> {
  try {
    await using scratch = await scratchDir(source.dataDir);
    const { manifest, parts } = await prepare(source, scratch.path);
    if (file === "-")
      await pipeline(Readable.from(archive(manifest, parts, source.now)), createGzip(), stdout, { end: false });
    else await writeWhole(file, archive(manifest, parts, source.now));
    return manifest;
  } catch (e) {
    throw new AppError("BACKUP", [file, messageOf(e)], { cause: e });
  }
}

const scratchPrefix = ".backup-";

/** Beside the state, which is as secret as its copy; what a killed backup left goes first. */
async function scratchDir(dataDir: string): Promise<{ path: string } & AsyncDisposable> {
  for (const { name } of await list(dataDir))
    if (name.startsWith(scratchPrefix)) await rm(join(dataDir, name), { recursive: true, force: true });
  const path = await mkdtemp(join(dataDir, scratchPrefix));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** The state first: whatever secret a function in it needs was there before, and so is read after. */
async function prepare({ dataDir, loginsFile, version, now }: BackupSource, scratch: string) {
  const copy = join(scratch, "state.db");
  const { functions, schema } = copyDatabase(join(dataDir, "state.db"), copy);
  const secrets: Part[] = [];
  for (const namespace of await list(join(dataDir, "secrets")))
    if (namespace.isDirectory() && isName(namespace.name))
      secrets.push(...(await partsIn(dataDir, `secrets/${namespace.name}`, isSecretName)));
  const credentials = await partsIn(dataDir, "credentials", isSecretName);
  const logins = (await isThere(loginsFile)) ? [{ name: "docker-config.json", path: loginsFile }] : [];
  const parts: Part[] = [{ name: "state.db", path: copy }, ...secrets, ...credentials, ...logins];
  const manifest: BackupManifest = {
    format: backupFormat,
    schema,
    napd: version,
    createdAt: new Date(now).toISOString(),
    functions,
    secrets: secrets.length,
    items: backupItems.filter((item) => parts.some(({ name }) => name === item || name.startsWith(`${item}/`))),
  };
  return { manifest, parts };
}

/** In one transaction of its own, so that writers go on. */
function copyDatabase(from: string, to: string): { functions: number; schema: number } {
  const db = new DatabaseSync(from, { readOnly: true, timeout: 10_000 });
  try {
    const schema = Number(db.prepare("PRAGMA user_version").get()!.user_version);
    if (schema > schemaVersion)
      throw new Error(`${from} was written by a newer napd (schema ${schema}, this one knows ${schemaVersion})`);
    db.prepare("VACUUM INTO ?").run(to);
    return { functions: Number(db.prepare("SELECT count(*) AS n FROM functions").get()!.n), schema };
  } finally {
    db.close();
  }
}

/** Only what is a regular file: a link could lead anywhere. */
async function partsIn(dataDir: string, folder: string, isOurs: (name: string) => boolean): Promise<Part[]> {
  const files = (await list(join(dataDir, folder))).filter((entry) => entry.isFile() && isOurs(entry.name));
  return files.map(({ name }) => ({ name: `${folder}/${name}`, path: join(dataDir, folder, name) }));
}

async function* archive(manifest: BackupManifest, parts: readonly Part[], now: number): AsyncGenerator<Buffer> {
  const mtime = Math.floor(now / 1000);
  const text = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
  yield Buffer.concat([
    tarHeader({ name: manifestFile, size: text.length, mode: 0o600, mtime }),
    text,
    tarPadding(text.length),
  ]);
  for (const { name, path } of parts) {
    const file = await openUnlessGone(path);
    if (!file) continue; // a secret that was deleted since
    await using _ = file;
    const { size } = await file.stat();
    yield tarHeader({ name, size, mode: 0o600, mtime });
    yield* contentOf(file, size);
    yield tarPadding(size);
  }
  yield tarEnd;
}

/** Files are replaced and not changed in place, so an open one keeps its length. */
async function* contentOf(file: FileHandle, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < size; ) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(Math.min(256 * 1024, size - at)), 0, null, at);
    if (bytesRead === 0) throw new Error("a file became shorter while it was read; try again");
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

async function writeWhole(file: string, content: AsyncIterable<Buffer>): Promise<void> {
  const target = resolve(file);
  const draft = `${target}.${randomUUID()}.part`;
  try {
    const out = createWriteStream(draft, { flags: "wx", mode: 0o600, flush: true });
    await pipeline(Readable.from(content), createGzip(), out);
    await rename(draft, target);
  } catch (e) {
    await rm(draft, { force: true });
    throw e;
  }
  await syncDir(dirname(target));
}

/** Makes what was renamed in a directory last. */
export async function syncDir(dir: string): Promise<void> {
  await using handle = await open(dir);
  await handle.sync();
}

async function openUnlessGone(path: string): Promise<FileHandle | undefined> {
  return open(path).catch((e) => {
    if (systemCode(e) === "ENOENT") return undefined;
    throw e;
  });
}

async function isThere(path: string): Promise<boolean> {
  const file = await openUnlessGone(path);
  await file?.close();
  return file !== undefined;
}

async function list(dir: string): Promise<Dirent[]> {
  try {
    return await readdir(dir, { withFileTypes: true });
  } catch (e) {
    if (systemCode(e) === "ENOENT") return [];
    throw e;
  }
}
