import type { DatabaseSync } from "node:sqlite";
import { AppError, messageOf } from "../base/errors.ts";

/** SQLITE_FULL of https://www.sqlite.org/rescode.html; also when only the log of changes has no room. */
const sqliteFull = 13;

/** Runs a statement that changes the database. Fails with DISK_FULL or STORE; then nothing has changed. */
export function write<T>(db: DatabaseSync, statement: () => T): T {
  try {
    return statement();
  } catch (cause) {
    const code = cause instanceof Error && "errcode" in cause ? Number(cause.errcode) & 0xff : 0;
    if (code === sqliteFull) throw new AppError("DISK_FULL", ["what is deployed (state.db)"], { cause });
    throw new AppError("STORE", [db.location() ?? "state.db", messageOf(cause)], { cause });
  }
}
