import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { AppError, messageOf } from "../base/errors.ts";

/** Each entry brings the schema one version further; never edit one that was released. */
const migrations = [
  `CREATE TABLE functions (
     namespace TEXT NOT NULL,
     name TEXT NOT NULL,
     version TEXT NOT NULL,          -- JSON of what is wanted
     previous TEXT,                  -- JSON of what served before, while the wanted version has not got ready
     generation INTEGER NOT NULL,    -- of the wanted version
     previous_generation INTEGER,
     replicas INTEGER NOT NULL,
     failure TEXT,                   -- why the last rollout failed,
     failed_generation INTEGER,      -- and which version that was
     created_at INTEGER NOT NULL,    -- ms since the epoch
     PRIMARY KEY (namespace, name)
   ) STRICT;
   CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
   INSERT INTO counters VALUES ('generation', 0)`,
  `CREATE TABLE namespaces (
     name TEXT PRIMARY KEY,
     labels TEXT NOT NULL,           -- JSON
     annotations TEXT NOT NULL,      -- JSON
     leaving INTEGER NOT NULL        -- 1: deleted, and not all of it is gone yet
   ) STRICT;
   INSERT INTO namespaces SELECT DISTINCT namespace, '{}', '{}', 0 FROM functions`,
  // 1: its replicas were stopped for want of calls
  "ALTER TABLE functions ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0",
  `CREATE TABLE cron (
     namespace TEXT NOT NULL,
     name TEXT NOT NULL,
     state TEXT NOT NULL,            -- JSON: how far its schedules have been dealt with, and its latest runs
     PRIMARY KEY (namespace, name)
   ) STRICT`,
];

/** The version of the schema that this napd writes. */
export const schemaVersion = migrations.length;

/**
 * Opens `state.db` in the data directory, making it when it is not there. Commits are on disk when a statement
 * returns (WAL, synchronous=FULL). Fails with STORE.
 */
export function openState(dataDir: string): DatabaseSync {
  const file = join(dataDir, "state.db");
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    const db = new DatabaseSync(file);
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000");
    migrate(db);
    return db;
  } catch (cause) {
    throw new AppError("STORE", [file, messageOf(cause)], { cause });
  }
}

function migrate(db: DatabaseSync): void {
  const version = Number(db.prepare("PRAGMA user_version").get()!.user_version);
  if (version > migrations.length)
    throw new Error(`it was written by a newer napd (schema ${version}, this one knows ${migrations.length})`);
  for (let next = version; next < migrations.length; next++) {
    db.exec(`BEGIN IMMEDIATE; ${migrations[next]}; PRAGMA user_version = ${next + 1}; COMMIT`);
  }
}
