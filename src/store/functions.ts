import type { DatabaseSync } from "node:sqlite";
import { failpoint } from "../base/failpoints.ts";
import type { FunctionId } from "../base/names.ts";
import { write } from "./write.ts";

/** A function as it is wanted. `V` is the domain's version of a function, kept as JSON. */
export interface FunctionRow<V> extends FunctionId {
  readonly version: V;
  /** Counts up with every version of any function; never used twice, so a replica's id never means two things. */
  readonly generation: number;
  /** What served before, while `version` has not got ready. */
  readonly previous: { version: V; generation: number } | null;
  readonly replicas: number;
  /** Nobody called it for long: none of its replicas is to run until somebody does. */
  readonly stopped: boolean;
  /** Which version failed last and why: the wanted one, or an update that was given up. Null when none did. */
  readonly failure: { generation: number; reason: string } | null;
  /** Ms since the epoch. */
  readonly createdAt: number;
}

type Columns = {
  namespace: string;
  name: string;
  version: string;
  generation: number;
  previous: string | null;
  previous_generation: number | null;
  replicas: number;
  stopped: number;
  failure: string | null;
  failed_generation: number | null;
  created_at: number;
};

/** The desired state of functions: one row each, durable when a call returns. */
export class FunctionStore<V> {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  list(): FunctionRow<V>[] {
    return (this.#db.prepare("SELECT * FROM functions ORDER BY namespace, name").all() as unknown as Columns[]).map(
      (c) => this.#row(c),
    );
  }

  get(id: FunctionId): FunctionRow<V> | undefined {
    const columns = this.#db
      .prepare("SELECT * FROM functions WHERE namespace = ? AND name = ?")
      .get(id.namespace, id.name);
    return columns && this.#row(columns as unknown as Columns);
  }

  /** A generation that no version of any function ever had. */
  nextGeneration(): number {
    const sql = "UPDATE counters SET value = value + 1 WHERE name = 'generation' RETURNING value";
    return Number(write(this.#db, () => this.#db.prepare(sql).get()!.value));
  }

  /** A new function. */
  insert(id: FunctionId, version: V, generation: number, replicas: number, now: number): FunctionRow<V> {
    failpoint("store.insert");
    this.#run(
      "INSERT INTO functions (namespace, name, version, generation, replicas, created_at) VALUES (?, ?, ?, ?, ?, ?)",
      ...[id.namespace, id.name, JSON.stringify(version), generation, replicas, now],
    );
    return this.get(id)!;
  }

  /** A new version of a function; `previous` is what goes on serving until it is ready, if anything. */
  update(
    id: FunctionId,
    version: V,
    generation: number,
    previous: { version: V; generation: number } | null,
    replicas: number,
  ): FunctionRow<V> {
    failpoint("store.update");
    this.#run(
      "UPDATE functions SET version = ?, generation = ?, previous = ?, previous_generation = ?, replicas = ?, stopped = 0, failure = NULL WHERE namespace = ? AND name = ?",
      JSON.stringify(version),
      generation,
      previous && JSON.stringify(previous.version),
      previous?.generation ?? null,
      ...[replicas, id.namespace, id.name],
    );
    return this.get(id)!;
  }

  /** The wanted version serves: nothing is needed to go back to. */
  settle(id: FunctionId): FunctionRow<V> {
    failpoint("store.settle");
    this.#run(
      "UPDATE functions SET previous = NULL, previous_generation = NULL, failure = NULL WHERE namespace = ? AND name = ?",
      ...[id.namespace, id.name],
    );
    return this.get(id)!;
  }

  /** The wanted version failed: back to the previous one, if there is one; the reason stays. */
  fail(id: FunctionId, reason: string): FunctionRow<V> {
    failpoint("store.fail");
    this.#run(
      `UPDATE functions SET version = coalesce(previous, version), generation = coalesce(previous_generation, generation),
         failed_generation = generation, previous = NULL, previous_generation = NULL, failure = ? WHERE namespace = ? AND name = ?`,
      ...[reason, id.namespace, id.name],
    );
    return this.get(id)!;
  }

  /** So many are wanted; they run. */
  scale(id: FunctionId, replicas: number): FunctionRow<V> {
    failpoint("store.scale");
    this.#run(
      "UPDATE functions SET replicas = ?, stopped = 0 WHERE namespace = ? AND name = ?",
      ...[replicas, id.namespace, id.name],
    );
    return this.get(id)!;
  }

  /** None is to run until `scale` says so; how many are wanted stays. */
  stop(id: FunctionId): FunctionRow<V> {
    this.#run("UPDATE functions SET stopped = 1 WHERE namespace = ? AND name = ?", id.namespace, id.name);
    return this.get(id)!;
  }

  delete(id: FunctionId): void {
    failpoint("store.delete");
    this.#run("DELETE FROM functions WHERE namespace = ? AND name = ?", id.namespace, id.name);
  }

  #run(sql: string, ...values: (string | number | null)[]): void {
    write(this.#db, () => this.#db.prepare(sql).run(...values));
  }

  #row(c: Columns): FunctionRow<V> {
    return {
      namespace: c.namespace,
      name: c.name,
      version: JSON.parse(c.version),
      generation: c.generation,
      previous: c.previous === null ? null : { version: JSON.parse(c.previous), generation: c.previous_generation! },
      replicas: c.replicas,
      stopped: c.stopped === 1,
      failure: c.failure === null ? null : { generation: c.failed_generation!, reason: c.failure },
      createdAt: c.created_at,
    };
  }
}
