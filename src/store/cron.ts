import type { DatabaseSync } from "node:sqlite";
import type { FunctionId } from "../base/names.ts";
import { write } from "./write.ts";

/** What is kept of one function's schedules. `S` is theirs to define; it must survive JSON. */
export interface CronRecord<S> extends FunctionId {
  readonly state: S;
}

/** What cron has done: one row a function. */
export class CronStore<S> {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  load(): CronRecord<S>[] {
    const rows = this.#db.prepare("SELECT namespace, name, state FROM cron").all() as Record<string, string>[];
    return rows.map((row) => ({ namespace: row.namespace!, name: row.name!, state: JSON.parse(row.state!) as S }));
  }

  /**
   * All of it or nothing. It survives the end of napd, however it ends, and mostly a power cut: to wait for the disk
   * every second would keep calls waiting for little. Fails with STORE or DISK_FULL.
   */
  save(changed: readonly CronRecord<S>[], gone: readonly FunctionId[]): void {
    const db = this.#db;
    write(db, () => {
      db.exec("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE");
      try {
        const put = db.prepare("INSERT OR REPLACE INTO cron (namespace, name, state) VALUES (?, ?, ?)");
        const remove = db.prepare("DELETE FROM cron WHERE namespace = ? AND name = ?");
        for (const { namespace, name } of gone) remove.run(namespace, name);
        for (const { namespace, name, state } of changed) put.run(namespace, name, JSON.stringify(state));
        db.exec("COMMIT");
      } finally {
        if (db.isTransaction) db.exec("ROLLBACK");
        db.exec("PRAGMA synchronous = FULL");
      }
    });
  }
}
