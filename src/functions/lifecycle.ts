import { backoffMs } from "../base/backoff.ts";
import { type Clock, within } from "../base/clock.ts";
import { AppError, isAppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Pending } from "../base/pending.ts";
import type { Address, Backend, ObservedReplica, ReplicaIdentity, ReplicaSpec } from "./backend.ts";
import type { Managed } from "./managed.ts";
import { becomeReady } from "./readiness.ts";
import { Replica, servingStates } from "./replica.ts";
import { retryMaxMs, retryMinMs } from "./retries.ts";

export interface LifecycleOptions {
  backend: Backend;
  /** Ms a replica may take to get ready. */
  readyTimeoutMs: number;
  /** Ms for the requests of a stopping replica, and again for its process. */
  graceMs: number;
  clock: Clock;
  log: Logger;
  work: Pending;
  /** Aborts when nothing is to be tried again any more. */
  closing: AbortSignal;
  /** A replica has got ready, has failed or is gone. */
  changed: (m: Managed) => void;
  /** A replica could not be started, or did not get ready; told before `changed`. */
  failed: (m: Managed, replica: Replica, error: unknown) => void;
}

/** The way up and the way down of one replica. What is to go up or down, and what a failure means, the rollout decides. */
export class Lifecycle {
  readonly #o: LifecycleOptions;

  constructor(options: LifecycleOptions) {
    this.#o = options;
  }

  /** From nothing to ready or failed. */
  start(m: Managed, wanted: ReplicaSpec): void {
    this.#bringUp(m, wanted, (signal) => this.#start(m, wanted, signal));
  }

  /**
   * Takes over a replica that runs since before us. One that slept when napd ended sleeps on: it was ready once, and
   * the first call finds out whether it still is.
   */
  adopt(m: Managed, o: ObservedReplica, address: Address): void {
    if (o.condition !== "frozen") {
      this.#bringUp(m, o, async () => address);
      return;
    }
    const { name, namespace, generation, number } = o;
    const replica = new Replica({ name, namespace, generation, number });
    replica.connect(address);
    replica.readySince = this.#o.clock.monotonic();
    replica.move(["starting"], "frozen");
    m.replicas.set(replica.id, replica);
  }

  /** Takes over what is no use any more: as a failed replica, so that nothing starts under its id before it is gone. */
  adoptDead(m: Managed, o: ReplicaIdentity): void {
    const { name, namespace, generation, number } = o;
    const replica = new Replica({ name, namespace, generation, number });
    replica.move(["starting"], "failed");
    m.replicas.set(replica.id, replica);
  }

  /** Drains, stops and forgets a replica. One that is starting is told to give up; its failure is told as any other. */
  retire(m: Managed, replica: Replica): void {
    if (replica.state === "starting") {
      replica.abort.abort(new AppError("SUPERSEDED", [m.row.name]));
      return;
    }
    const drains = replica.serves;
    if (!replica.move([...servingStates, "failed"], "stopping")) return;
    this.#o.work.add(this.#takeDown(m, replica, drains));
  }

  #bringUp(m: Managed, identity: ReplicaIdentity, start: (signal: AbortSignal) => Promise<Address>): void {
    const { name, namespace, generation, number } = identity;
    const replica = new Replica({ name, namespace, generation, number });
    m.replicas.set(replica.id, replica);
    const { readyTimeoutMs, clock, backend, work, failed, changed } = this.#o;
    const run = async () => {
      try {
        const begin = clock.monotonic();
        const address = await start(replica.abort.signal);
        replica.connect(address);
        await becomeReady(replica, address, m.entry.policy.readyPath, readyTimeoutMs, backend, clock);
        this.#ready(m, replica, begin);
      } catch (e) {
        replica.move(["starting"], "failed");
        failed(m, replica, e);
      }
      changed(m);
    };
    work.add(run());
  }

  #ready(m: Managed, replica: Replica, begin: number): void {
    replica.readySince = this.#o.clock.monotonic();
    if (!replica.move(["starting"], "ready")) return;
    m.retries.reason = null;
    const ms = Math.round(replica.readySince - begin);
    this.#o.log.info({ fn: m.key, replica: replica.id, ms }, "replica ready");
  }

  async #start(m: Managed, wanted: ReplicaSpec, signal: AbortSignal): Promise<Address> {
    try {
      return await this.#o.backend.start(wanted, signal);
    } catch (e) {
      if (!isAppError(e, "IMAGE_MISSING") || m.deleted) throw e;
      // the image went away under us (garbage collection, a wiped containerd): the deployed version names where it came from
      await this.#o.backend.prepare(wanted.namespace, wanted.image, "IfNotPresent", signal);
      return this.#o.backend.start(wanted, signal);
    }
  }

  async #takeDown(m: Managed, replica: Replica, drains: boolean): Promise<void> {
    const { graceMs, clock, changed } = this.#o;
    await replica.settled(); // a freeze that comes after the thaw of the removal would hold that up
    if (drains) await within(replica.drained(), graceMs, clock);
    if (!(await this.#stop(m, replica, drains ? graceMs : 0))) return;
    await replica.disconnect();
    m.replicas.delete(replica.id);
    changed(m);
  }

  /** Until it succeeds: what a replica holds would be held for ever. False when napd stops before. */
  async #stop(m: Managed, replica: Replica, graceMs: number): Promise<boolean> {
    const { backend, clock, log, closing } = this.#o;
    for (let attempt = 0; ; attempt++) {
      try {
        await backend.stop(replica.identity, graceMs);
        return true;
      } catch (e) {
        const what = "replica could not be removed; it will be tried again";
        log.warn({ fn: m.key, replica: replica.id, err: messageOf(e) }, what);
        await clock.sleep(backoffMs(attempt, retryMinMs, retryMaxMs), closing).catch(() => {});
        if (closing.aborted) return false;
      }
    }
  }
}
