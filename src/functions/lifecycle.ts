import { backoffMs } from "../base/backoff.ts";
import { type Clock, within } from "../base/clock.ts";
import { AppError, isAppError, messageOf } from "../base/errors.ts";
import { failpoint } from "../base/failpoints.ts";
import type { Logger } from "../base/log.ts";
import type { Pending } from "../base/pending.ts";
import { Slots } from "../base/slots.ts";
import type { Address, Backend, ObservedReplica, ReplicaIdentity, ReplicaSpec } from "./backend.ts";
import type { Managed } from "./managed.ts";
import { monitor } from "./monitor.ts";
import type { Probes } from "./probes.ts";
import { becomeReady } from "./readiness.ts";
import { Replica, servingStates } from "./replica.ts";
import { retryMaxMs, retryMinMs } from "./retries.ts";

/** May change at any time, and holds for what begins afterwards. */
export interface LifecycleTimes {
  /** Ms a replica may take to get ready. */
  readyTimeoutMs: number;
  /** Ms for the requests of a stopping replica, and again for its process. */
  graceMs: number;
}

export interface LifecycleOptions {
  backend: Backend;
  times: LifecycleTimes;
  /** How many replicas may be on their way up at once, on the whole machine. */
  startsAtOnce: number;
  clock: Clock;
  log: Logger;
  work: Pending;
  /** Aborts when nothing is to be tried again any more. */
  closing: AbortSignal;
  /** A replica has got ready, has failed or is gone. */
  changed: (m: Managed) => void;
  /** A replica could not be started, or did not get ready; told before `changed`. */
  failed: (m: Managed, replica: Replica, error: unknown) => void;
  /** A ready replica does not answer its health check any more. */
  unhealthy: (m: Managed, replica: Replica, error: AppError) => void;
}

/** A replica that takes longer than this to get ready does not keep others from starting any more, ms. */
const holdMs = 5000;
/** Images fetched, and replicas without a living process cleared away, at once. */
const fetchesAtOnce = 4;
const clearancesAtOnce = 8;

interface Started {
  readonly address: Address;
  /** Its place among those who start; null when nothing was started. */
  readonly slot: Disposable | null;
}

/** The way up and the way down of one replica. What is to go up or down, and what a failure means, the rollout decides. */
export class Lifecycle {
  readonly #o: LifecycleOptions;
  /** So that the start of everything, as after a reboot, is no storm, and who is waited for comes soon all the same. */
  readonly #starts: Slots;
  readonly #fetches = new Slots(fetchesAtOnce);
  readonly #clearances = new Slots(clearancesAtOnce);

  constructor(options: LifecycleOptions) {
    this.#o = options;
    this.#starts = new Slots(options.startsAtOnce);
  }

  /** From nothing to ready or failed. */
  start(m: Managed, wanted: ReplicaSpec): void {
    this.#bringUp(m, newReplica(wanted), (signal) => this.#start(m, wanted, signal));
  }

  /**
   * Somebody waits for a function now: what waits for its turn to start goes before what nobody waits for, and an idle
   * replica that is being stopped, whose place is needed, gets no more time for that.
   */
  hurry(m: Managed): void {
    for (const replica of m.replicas.values())
      if (replica.state === "stopping" && replica.identity.generation === m.row.generation) replica.hurry.abort();
    for (const slots of [this.#starts, this.#fetches, this.#clearances]) slots.hurry(m);
  }

  /**
   * Takes over a replica that runs since before us. One that slept when napd ended sleeps on: it was ready once, and
   * the first call finds out whether it still is.
   */
  adopt(m: Managed, o: ObservedReplica, address: Address): void {
    const replica = newReplica(o, true);
    if (o.condition !== "frozen") {
      this.#bringUp(m, replica, async () => ({ address, slot: null }));
      return;
    }
    replica.connect(address);
    replica.readySince = this.#o.clock.monotonic();
    replica.move(["starting"], "frozen");
    m.replicas.set(replica.id, replica);
    this.#lookAfter(m, replica, address, m.entry.policy.probes);
  }

  /** Takes over what is no use any more: as a failed replica, so that nothing starts under its id before it is gone. */
  adoptDead(m: Managed, o: ReplicaIdentity): void {
    const replica = newReplica(o, true);
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

  #bringUp(m: Managed, replica: Replica, start: (signal: AbortSignal) => Promise<Started>): void {
    m.replicas.set(replica.id, replica);
    const { times, clock, backend, work, failed, changed } = this.#o;
    const run = async () => {
      try {
        const begin = clock.monotonic();
        const probes = m.probes(replica.identity.generation);
        const { address, slot } = await start(replica.abort.signal);
        replica.connect(address);
        const ready = becomeReady(replica, address, probes, times.readyTimeoutMs, backend, clock);
        if (slot) await within(ready, holdMs, clock).finally(() => slot[Symbol.dispose]());
        await ready;
        this.#ready(m, replica, begin);
        this.#lookAfter(m, replica, address, probes);
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
    failpoint("rollout.ready");
    if (!replica.move(["starting"], "ready")) return;
    m.retries.reason = null;
    const ms = Math.round(replica.readySince - begin);
    this.#o.log.info({ fn: m.key, replica: replica.id, ms }, "replica ready");
  }

  #lookAfter(m: Managed, replica: Replica, address: Address, probes: Probes): void {
    const { clock, changed, unhealthy } = this.#o;
    monitor(replica, address, probes, clock, {
      unhealthy: (error) => unhealthy(m, replica, error),
      refusal: () => changed(m),
    });
  }

  async #start(m: Managed, wanted: ReplicaSpec, signal: AbortSignal): Promise<Started> {
    for (let fetched = false; ; fetched = true) {
      const slot = await this.#starts.enter(m, m.awaited, signal);
      try {
        return { address: await this.#o.backend.start(wanted, signal), slot };
      } catch (e) {
        slot[Symbol.dispose]();
        if (fetched || !isAppError(e, "IMAGE_MISSING") || m.deleted) throw e;
      }
      // it went away under us (garbage collection, a wiped containerd): the deployed version names where it came from
      using _ = await this.#fetches.enter(m, m.awaited, signal);
      await this.#o.backend.prepare(wanted.namespace, wanted.image, "IfNotPresent", signal);
    }
  }

  async #takeDown(m: Managed, replica: Replica, drains: boolean): Promise<void> {
    const { times, clock, changed } = this.#o;
    const { graceMs } = times;
    await replica.settled(); // a freeze that comes after the thaw of the removal would hold that up
    if (drains) await within(replica.drained(), graceMs, clock);
    failpoint("rollout.drained");
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
        // what takes its time to end in order must not hold up others
        using _ = graceMs > 0 ? null : await this.#clearances.enter(m, m.awaited || m.deleted, closing);
        await backend.stop(replica.identity, graceMs, replica.hurry.signal);
        return true;
      } catch (e) {
        if (closing.aborted) return false;
        const what = "replica could not be removed; it will be tried again";
        log.warn({ fn: m.key, replica: replica.id, err: messageOf(e) }, what);
        await clock.sleep(backoffMs(attempt, retryMinMs, retryMaxMs), closing).catch(() => {});
        if (closing.aborted) return false;
      }
    }
  }
}

/** Only the identity: what else `of` holds is not the replica's. */
function newReplica({ name, namespace, generation, number }: ReplicaIdentity, adopted = false): Replica {
  return new Replica({ name, namespace, generation, number }, adopted);
}
