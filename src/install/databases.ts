import { constants, existsSync } from "node:fs";
import { copyFile, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { AppError } from "../base/errors.ts";
import type { Release } from "./releases.ts";

/** Versions of the schemas of databases, by file. */
export type Schemas = Readonly<Record<string, number>>;

/** A database with the log of its latest changes. */
const parts = ["", "-wal"];
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

/** Copies of databases, for the case that a new release does not get healthy. napd must not run. */
export async function keepDatabases(dataDir: string, files: readonly string[]): Promise<void> {
  const dir = join(dataDir, copies);
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { mode: 0o700 });
  await copyAll(dataDir, dir, files);
}

/** The state that `keepDatabases` met. napd must not run. */
export async function putDatabasesBack(dataDir: string, files: readonly string[]): Promise<void> {
  for (const file of files)
    for (const part of [...parts, "-shm"]) await rm(join(dataDir, `${file}${part}`), { force: true });
  await copyAll(join(dataDir, copies), dataDir, files);
}

export async function dropDatabaseCopies(dataDir: string): Promise<void> {
  await rm(join(dataDir, copies), { recursive: true, force: true });
}

async function copyAll(from: string, to: string, files: readonly string[]): Promise<void> {
  for (const file of files.flatMap((name) => parts.map((part) => `${name}${part}`)))
    if (existsSync(join(from, file))) await copyFile(join(from, file), join(to, file), constants.COPYFILE_FICLONE);
}
