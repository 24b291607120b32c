import { createReadStream, existsSync } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { z } from "zod";
import { AppError, messageOf } from "../base/errors.ts";
import { failpoint } from "../base/failpoints.ts";
import { isName, isSecretName } from "../base/names.ts";
import { BadTar, readTar, StreamCursor } from "../base/tar.ts";
import { type BackupManifest, backupFormat, backupItems, manifestFile, syncDir } from "./backup.ts";
import { schemaVersion } from "./state.ts";

const manifestSchema = z.object({
  format: z.literal(backupFormat, `is not of format ${backupFormat}, which this napd knows`),
  schema: z.int(),
  napd: z.string(),
  createdAt: z.string(),
  functions: z.int(),
  secrets: z.int(),
  items: z.array(z.enum(backupItems)),
});

/** Whole, checked, and about to take the place of what is there: from here on a restore is not undone but finished. */
const committedDir = "restore";
const stagingDir = "restore.part";

export interface RestoreOptions {
  dataDir: string;
  file: string;
  /** Whether state that is there may be replaced. */
  force: boolean;
}

/**
 * Replaces the state in the data directory by that of a backup: all of it or nothing, also when it is killed in
 * between. Nobody else may use the directory meanwhile. Fails with RESTORE.
 */
export async function restoreBackup({ dataDir, file, force }: RestoreOptions): Promise<BackupManifest> {
  const staging = join(dataDir, stagingDir);
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    await finishRestore(dataDir);
    if (!force && (await hasState(dataDir)))
      throw new Error(`${dataDir} holds state already, which --force replaces; take a backup of it first`);
    await mkdir(staging, { mode: 0o700 });
    const manifest = await unpack(file, staging);
    adoptDatabase(join(staging, "state.db"), manifest, join(dataDir, "state.db"));
    await syncTree(staging);
    failpoint("restore.staged");
    await rename(staging, join(dataDir, committedDir));
    await syncDir(dataDir);
    failpoint("restore.committed");
    await finishRestore(dataDir);
    return manifest;
  } catch (e) {
    await rm(staging, { recursive: true, force: true });
    throw new AppError("RESTORE", [file, messageOf(e)], { cause: e });
  }
}

/** Puts a restore that was cut short into place, or away if it was not whole. Before anybody opens the state. */
export async function finishRestore(dataDir: string): Promise<void> {
  await rm(join(dataDir, stagingDir), { recursive: true, force: true });
  const from = join(dataDir, committedDir);
  if (!existsSync(join(from, manifestFile))) return;
  const { items } = manifestSchema.parse(JSON.parse(await readFile(join(from, manifestFile), "utf8")));
  // a log of the old database would be taken for the new one's
  for (const name of ["state.db-wal", "state.db-shm"]) await rm(join(dataDir, name), { force: true });
  for (const item of backupItems) {
    const isDone = items.includes(item) && !existsSync(join(from, item));
    if (isDone) continue;
    await rm(join(dataDir, item), { recursive: true, force: true });
    failpoint(`restore.${item}`);
    if (items.includes(item)) await rename(join(from, item), join(dataDir, item));
  }
  await syncDir(dataDir);
  await rm(from, { recursive: true, force: true });
}

/** Credentials alone are no state: they are generated at the first start. */
async function hasState(dataDir: string): Promise<boolean> {
  const secrets = await readdir(join(dataDir, "secrets")).catch(() => []);
  return existsSync(join(dataDir, "state.db")) || secrets.length > 0;
}

/** Writes the files of a backup, after the manifest that must come first. Nothing else in it is taken. */
async function unpack(file: string, dir: string): Promise<BackupManifest> {
  let manifest: BackupManifest | undefined;
  try {
    const bytes = pipeline(createReadStream(file), createGunzip(), () => {});
    const cursor = new StreamCursor(bytes as AsyncIterable<Buffer>);
    for await (const { name, kind, size } of readTar(cursor)) {
      if (!manifest) {
        if (name !== manifestFile) break;
        manifest = readManifest(await cursor.take(Math.min(size, 1024 * 1024)));
      } else if (kind !== "file" || !isExpected(name)) throw new BadTar(`it has an entry "${name.slice(0, 100)}"`);
      else await writeEntry(join(dir, name), size, cursor);
    }
    if (!manifest) throw new BadTar(`it does not begin with ${manifestFile}`);
    while (await cursor.next(64 * 1024)); // to the end: only there is the checksum of what is packed
  } catch (e) {
    if (/^(?:Z_|ERR_)/.test(String((e as { code?: unknown }).code)) || e instanceof BadTar)
      throw new Error(`it is no backup of napd, or damaged (${messageOf(e)})`, { cause: e });
    throw e;
  }
  await writeSynced(join(dir, manifestFile), Buffer.from(JSON.stringify(manifest)));
  for (const item of manifest.items)
    if (!existsSync(join(dir, item))) throw new Error(`it is damaged: ${item} is missing`);
  return manifest;
}

function readManifest(text: Buffer): BackupManifest {
  const parsed = manifestSchema.safeParse(jsonOf(text));
  if (!parsed.success)
    throw new BadTar(`${manifestFile}: ${parsed.error.issues[0]!.path.join(".")} ${parsed.error.issues[0]!.message}`);
  checkSchema(parsed.data.schema, parsed.data.napd);
  return parsed.data;
}

function jsonOf(text: Buffer): unknown {
  try {
    return JSON.parse(text.toString());
  } catch (e) {
    throw new BadTar(`${manifestFile}: ${messageOf(e)}`);
  }
}

function checkSchema(schema: number, napd: string): void {
  if (schema > schemaVersion)
    throw new Error(
      `it was made by a newer napd (${napd}, schema ${schema}; this one knows ${schemaVersion}); install that version first`,
    );
}

function isExpected(name: string): boolean {
  const [folder, first = "", second, ...more] = name.split("/");
  if (more.length > 0) return false;
  if (folder === "secrets") return isName(first) && second !== undefined && isSecretName(second);
  if (folder === "credentials") return isSecretName(first) && second === undefined;
  return name === "state.db" || name === "docker-config.json";
}

async function writeEntry(path: string, size: number, cursor: StreamCursor): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await using out = await open(path, "wx", 0o600);
  for (let left = size; left > 0; ) {
    const piece = await cursor.next(left);
    if (!piece) throw new BadTar("it ends too early");
    await out.appendFile(piece);
    left -= piece.length;
  }
  await out.sync();
}

async function writeSynced(path: string, bytes: Buffer): Promise<void> {
  await using out = await open(path, "wx", 0o600);
  await out.appendFile(bytes);
  await out.sync();
}

/**
 * Checks the database and moves its generations behind all that were ever used here. What runs on this machine under
 * an old number may be something else than what that number means in the backup: it must not be taken over.
 */
function adoptDatabase(file: string, { napd }: BackupManifest, current: string): void {
  const db = new DatabaseSync(file);
  try {
    const [check] = db.prepare("PRAGMA integrity_check").all() as { integrity_check: string }[];
    if (check?.integrity_check !== "ok") throw new Error(`state.db in it is damaged: ${check?.integrity_check}`);
    checkSchema(Number(db.prepare("PRAGMA user_version").get()!.user_version), napd);
    const offset = Math.max(counterOf(db), currentCounter(current));
    db.exec(`BEGIN;
      UPDATE functions SET generation = generation + ${offset}, previous_generation = previous_generation + ${offset},
        failed_generation = failed_generation + ${offset};
      UPDATE counters SET value = value + ${offset} WHERE name = 'generation';
      COMMIT`);
  } finally {
    db.close();
  }
}

function counterOf(db: DatabaseSync): number {
  return Number(db.prepare("SELECT value FROM counters WHERE name = 'generation'").get()!.value);
}

/** 0 when there is no database, or none that can be read: that is what a restore is for. */
function currentCounter(file: string): number {
  try {
    const db = new DatabaseSync(file, { readOnly: true });
    try {
      return counterOf(db);
    } finally {
      db.close();
    }
  } catch {
    return 0;
  }
}

async function syncTree(dir: string): Promise<void> {
  for (const entry of await readdir(dir, { withFileTypes: true }))
    if (entry.isDirectory()) await syncTree(join(dir, entry.name));
  await syncDir(dir);
}
