import { mapBounded } from "../base/bounded.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type FunctionId, keyOf } from "../base/names.ts";
import { type Backend, type ObservedReplica, type ReplicaExit, replicaId } from "./backend.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Managed } from "./managed.ts";

/** Containers of nobody that are removed at once, at most. */
const removals = 8;

export interface ReconcilerOptions {
  backend: Backend;
  lifecycle: Lifecycle;
  log: Logger;
  find: (id: FunctionId) => Managed | undefined;
  /** Every function, also those that are leaving. */
  all: () => readonly Managed[];
  /** A replica that was up is not there any more. */
  lost: (exit: ReplicaExit) => void;
  changed: (m: Managed) => void;
  closing: AbortSignal;
}

/** Compares what there is with what is known: once at the start, and whenever something may have been missed. */
export class Reconciler {
  readonly #o: ReconcilerOptions;

  constructor(options: ReconcilerOptions) {
    this.#o = options;
  }

  /**
   * At the start: takes over what runs and is wanted, its process untouched. What is of no use but belongs to a
   * function is taken over as failed, so that its function alone waits until it is gone; the rest is removed here.
   */
  async takeOver(): Promise<{ adopted: number; removed: number }> {
    const { backend, lifecycle, find } = this.#o;
    const observed = await backend.list();
    const strangers: ObservedReplica[] = [];
    let adopted = 0;
    for (const o of observed) {
      const m = find(o);
      if (!m) strangers.push(o);
      else if (o.condition !== "dead" && o.address && isWanted(m, o)) {
        lifecycle.adopt(m, o, o.address);
        adopted++;
      } else lifecycle.adoptDead(m, o);
    }
    await mapBounded(strangers, removals, (o) => backend.stop(o, 0));
    return { adopted, removed: observed.length - adopted };
  }

  /** Later: finds exits that nobody told, and replicas that nobody knows. Never fails: it will be asked for again. */
  async compare(): Promise<void> {
    const { backend, all, lost, log, closing } = this.#o;
    // only those that were up before the list was asked for: others may have come while it was made
    const up = new Set(all().flatMap((m) => [...m.replicas.values()].filter((r) => r.pool !== null)));
    try {
      const observed = new Map((await backend.list()).map((o) => [`${o.namespace}/${replicaId(o)}`, o]));
      if (closing.aborted) return;
      for (const m of all()) {
        for (const r of m.replicas.values()) {
          const key = `${m.row.namespace}/${r.id}`;
          const seen = observed.get(key);
          observed.delete(key);
          if (up.has(r) && (!seen || seen.condition === "dead"))
            lost({ ...r.identity, exitCode: null, outOfMemory: false });
        }
      }
      await mapBounded([...observed.values()], removals, (o) => this.#dispose(o));
    } catch (e) {
      log.warn({ err: messageOf(e) }, "reconciliation failed; it will be tried again");
    }
  }

  /** A replica that nobody knows: a crash left it. */
  async #dispose(stranger: ObservedReplica): Promise<void> {
    const { backend, lifecycle, log, find, changed } = this.#o;
    const fn = keyOf(stranger);
    log.warn({ fn, replica: replicaId(stranger) }, "removing a replica that belongs to nobody");
    const m = find(stranger);
    if (!m) return backend.stop(stranger, 0);
    lifecycle.adoptDead(m, stranger);
    changed(m);
  }
}

function isWanted(m: Managed, o: ObservedReplica): boolean {
  return o.generation === m.row.generation || o.generation === m.row.previous?.generation;
}
