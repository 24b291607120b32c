import { constants, existsSync } from "node:fs";
import { copyFile, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { AppError } from "../base/errors.ts";
import type { Release } from "./releases.ts";

/** Versions of the schemas of databases, by file. */
export type Schemas = Readonly<Record<string, number>>;

const log = "-wal";
const copies = ".before-upgrade";

/** Of those databases that are there. */
function schemasOf(dataDir: string, files: readonly string[]): Schemas {
  const found = files.filter((file) => existsSync(join(dataDir, file)));
  return Object.fromEntries(found.map((file) => [file, schemaOf(join(dataDir, file))]));
}

function schemaOf(file: string): number {
  const db = new DatabaseSync(file, { readOnly: true });
  try {
    return Number(db.prepare("PRAGMA user_version").get()!.user_version);
  } finally {
    db.close();
  }
}

/**
 * Names of databases that a release will bring to a newer schema, which the one before it cannot read any more. Fails
 * with INSTALL when one of them is beyond that release already.
 */
export function databasesToChange(dataDir: string, { version, schemas }: Release): string[] {
  const found = schemasOf(dataDir, Object.keys(schemas));
  for (const [file, schema] of Object.entries(found))
    if (schema > schemas[file]!)
      throw new AppError("INSTALL", [
        `${file} has schema ${schema} from a newer napd, and napd ${version} knows ${schemas[file]}`,
        "install a newer one, or restore a backup that was made with that version",
      ]);
  return Object.keys(found).filter((file) => found[file]! < schemas[file]!);
}

/**
 * Copies databases, for the case that a new release does not get healthy; all of them, or there are no copies. napd
 * must not run.
 */
export async function keepDatabases(dataDir: string, files: readonly string[]): Promise<void> {
  const work = join(dataDir, `${copies}.new`);
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { mode: 0o700 });
  for (const file of files.flatMap(partsOf))
    if (existsSync(join(dataDir, file)))
      await copyFile(join(dataDir, file), join(work, file), constants.COPYFILE_FICLONE);
  await rename(work, join(dataDir, copies));
}

/** Puts back what was copied, if anything was. napd must not run. */
export async function putDatabasesBack(dataDir: string): Promise<void> {
  const dir = join(dataDir, copies);
  // a database before its log, which goes with the one that is replaced
  for (const file of (await readdir(dir).catch(() => [])).sort()) {
    if (!file.endsWith(log))
      for (const part of [log, "-shm"]) await rm(join(dataDir, `${file}${part}`), { force: true });
    await rename(join(dir, file), join(dataDir, file));
  }
}

export async function dropDatabaseCopies(dataDir: string): Promise<void> {
  for (const dir of [copies, `${copies}.new`]) await rm(join(dataDir, dir), { recursive: true, force: true });
}

/** Its latest changes may be in its log only. */
function partsOf(file: string): string[] {
  return [file, `${file}${log}`];
}
