import type { DatabaseSync } from "node:sqlite";

/** A namespace of functions and secrets, with what its owner says of it. */
export interface NamespaceRow {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** Deleted, and not all of it is gone yet. */
  readonly leaving: boolean;
}

type Columns = { name: string; labels: string; annotations: string; leaving: number };

/** Namespaces: one row each, durable when a call returns. Reads are from memory, since every request asks. */
export class NamespaceStore {
  readonly #db: DatabaseSync;
  readonly #rows = new Map<string, NamespaceRow>();
  #names: readonly string[] | null = null;

  constructor(db: DatabaseSync) {
    this.#db = db;
    for (const c of db.prepare("SELECT * FROM namespaces").all() as unknown as Columns[])
      this.#rows.set(c.name, {
        name: c.name,
        labels: JSON.parse(c.labels),
        annotations: JSON.parse(c.annotations),
        leaving: c.leaving === 1,
      });
  }

  get(name: string): NamespaceRow | undefined {
    return this.#rows.get(name);
  }

  /** Names of those that are there, sorted; the same array until something changes. */
  names(): readonly string[] {
    this.#names ??= this.list().flatMap((row) => (row.leaving ? [] : [row.name]));
    return this.#names;
  }

  /** Sorted by name; those that are leaving too. */
  list(): NamespaceRow[] {
    return [...this.#rows.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Makes it, or replaces what there is under its name. */
  put(row: NamespaceRow): void {
    this.#db
      .prepare(
        `INSERT INTO namespaces VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET labels = ?2, annotations = ?3, leaving = ?4`,
      )
      .run(row.name, JSON.stringify(row.labels), JSON.stringify(row.annotations), row.leaving ? 1 : 0);
    this.#rows.set(row.name, row);
    this.#names = null;
  }

  delete(name: string): void {
    this.#db.prepare("DELETE FROM namespaces WHERE name = ?").run(name);
    this.#rows.delete(name);
    this.#names = null;
  }
}
