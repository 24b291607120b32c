import { backoffMs } from "../base/backoff.ts";
import { type Clock, within } from "../base/clock.ts";
import { AppError, isAppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type FunctionId, keyOf } from "../base/names.ts";
import type { FunctionStore } from "../store/functions.ts";
import type { Address, Backend, ObservedReplica, ReplicaExit, ReplicaIdentity } from "./backend.ts";
import { replicaId } from "./backend.ts";
import { Managed, type Observed, type Row, type Version } from "./managed.ts";
import { plan } from "./plan.ts";
import { type Policy, type PolicyDefaults, policyOf, replicaSpec } from "./policy.ts";
import { becomeReady, exitReason } from "./readiness.ts";
import { Replica, servingStates } from "./replica.ts";
import type { Table } from "./table.ts";

export interface RolloutOptions {
  store: FunctionStore<Version>;
  backend: Backend;
  table: Table;
  defaults: PolicyDefaults;
  /** Ms a replica may take to get ready. */
  readyTimeoutMs: number;
  /** Ms for the requests of a stopping replica, and again for its process. */
  graceMs: number;
  clock: Clock;
  log: Logger;
}

/** Waiting times before a crashed or failed replica is started again. */
const retryMinMs = 500;
const retryMaxMs = 60_000;
/** A replica that was ready for so long has not failed to start: its crash counts as the first. */
const stableMs = 30_000;
/** After so many failures in a row, callers are told at once instead of being kept waiting. */
const patience = 3;

/**
 * Makes reality match the store. Everything that can change the picture (a deploy, an exit, a finished start, a lost
 * connection, a slow timer) ends in `#step`, which is synchronous: it asks `plan`, swaps the route and launches what
 * is to be started or stopped. Whatever finishes calls it again.
 */
export class Rollout implements AsyncDisposable {
  readonly #o: RolloutOptions;
  readonly #functions = new Map<string, Managed>();
  /** Deleted ones whose replicas are not gone yet. */
  readonly #leaving = new Set<Managed>();
  /** Starts and stops under way, so that closing can wait for them. */
  readonly #work = new Set<Promise<void>>();
  #watch: Disposable | null = null;
  #slowTimer: NodeJS.Timeout | null = null;
  /** Until `open` has cleared away what is left, nothing is started: it would be cleared away too. */
  #opened = false;
  #closing = false;

  constructor(options: RolloutOptions) {
    this.#o = options;
  }

  /** Takes over what runs, removes what is nobody's, and starts what is missing. Then keeps it so. */
  async open(): Promise<void> {
    const { store, backend } = this.#o;
    const observed = await backend.list();
    const rows = store.list();
    for (const row of rows) this.#manage(row);
    const leftovers = observed.filter((o) => !this.#adopt(o));
    await Promise.all(leftovers.map((o) => backend.stop(o, 0)));
    await this.#sweep();
    this.#watch = backend.watch(
      (exit) => this.#exited(exit),
      () => void this.reconcile(),
    );
    this.#slowTimer = setInterval(() => void this.reconcile(), 60_000).unref();
    this.#opened = true;
    for (const m of this.#functions.values()) this.#step(m);
    this.#o.log.info(
      { functions: rows.length, adopted: observed.length - leftovers.length, removed: leftovers.length },
      "functions reconciled",
    );
  }

  /** Tells those who wait for a deploy that napd stops: what was stored goes on with the next start. */
  endDeploys(): void {
    for (const m of this.#functions.values()) m.endDeploys(() => true, new AppError("SHUTTING_DOWN", []));
  }

  /** Stops deciding. Functions run on; see `removeAll`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    this.#watch?.[Symbol.dispose]();
    if (this.#slowTimer) clearInterval(this.#slowTimer);
    for (const m of this.#functions.values()) {
      if (m.retryTimer) clearTimeout(m.retryTimer);
      m.endCallers(new AppError("SHUTTING_DOWN", []));
      m.endDeploys(() => true, new AppError("SHUTTING_DOWN", []));
      for (const r of m.replicas.values()) if (r.state === "starting") r.abort.abort(new AppError("SHUTTING_DOWN", []));
    }
    while (this.#work.size > 0) await Promise.allSettled(this.#work);
    await Promise.all(
      [...this.#functions.values()].flatMap((m) => [...m.replicas.values()].map((r) => r.disconnect())),
    );
  }

  /** Takes every replica down; what is deployed stays deployed. After closing. */
  async removeAll(): Promise<void> {
    const { backend, graceMs } = this.#o;
    await Promise.all((await backend.list()).map((r) => backend.stop(r, graceMs)));
    await backend.sweep({ replicas: [], functions: this.#o.store.list(), images: this.#images() });
  }

  observe(id: FunctionId): Observed | undefined {
    const m = this.#functions.get(keyOf(id));
    return m?.observed();
  }

  observeAll(namespace: string): Observed[] {
    return [...this.#functions.values()].filter((m) => m.row.namespace === namespace).map((m) => m.observed());
  }

  /** Every function, with its replicas: for the scaler. */
  managed(): Iterable<Managed> {
    return this.#functions.values();
  }

  /** Stops the replicas of a function that nobody calls; the next call starts them again. */
  stopIdle(m: Managed): void {
    if (m.deleted || this.#closing) return;
    m.row = this.#o.store.stop(m.row);
    this.#o.log.info({ fn: m.key }, "stopped for want of calls");
    this.#step(m);
  }

  /** Brings a stored row (new, updated or scaled) into being; resolves when its version serves. */
  apply(row: Row): Promise<void> {
    const m = this.#functions.get(keyOf(row)) ?? this.#manage(row);
    m.want(row, this.#policy(row));
    const done = m.deployed(row.generation);
    this.#step(m);
    return done;
  }

  /** What to go back to should a new version fail: what serves now or, if it just crashed, is known to work. */
  servingVersion(id: FunctionId): { version: Version; generation: number } | null {
    const m = this.#functions.get(keyOf(id));
    if (!m) return null;
    const { version, generation, replicas, previous, stopped } = m.row;
    if (previous) return previous;
    return m.proven === generation || replicas === 0 || stopped ? { version, generation } : null;
  }

  /** Takes a function down for good; resolves when nothing of it is left. The row is gone already. */
  async remove(id: FunctionId): Promise<void> {
    const m = this.#functions.get(keyOf(id));
    if (!m) return;
    m.deleted = true;
    if (m.retryTimer) clearTimeout(m.retryTimer);
    this.#functions.delete(keyOf(id));
    this.#leaving.add(m);
    this.#o.table.delete(m.key);
    m.endDeploys(() => true, new AppError("FUNCTION_NOT_FOUND", [m.key]));
    m.endCallers(new AppError("FUNCTION_NOT_FOUND", [m.key]));
    const gone = m.gone();
    this.#step(m);
    await gone;
    this.#leaving.delete(m);
    await this.releaseImage(m.row.namespace, m.row.version.image);
    if (m.row.previous) await this.releaseImage(m.row.namespace, m.row.previous.version.image);
    // deployed again meanwhile: its logs are in the same place
    if (!this.#functions.has(keyOf(id))) await this.#o.backend.forget(id);
  }

  /** Compares with the backend: exits that were missed, replicas that nobody knows. */
  async reconcile(): Promise<void> {
    // only those that were up before the list was asked for: others may have come while it was made
    const up = new Set(
      [...this.#functions.values()].flatMap((m) => [...m.replicas.values()].filter((r) => r.pool !== null)),
    );
    try {
      const observed = new Map((await this.#o.backend.list()).map((o) => [`${o.namespace}/${replicaId(o)}`, o]));
      if (this.#closing) return;
      for (const m of [...this.#functions.values(), ...this.#leaving]) {
        for (const r of m.replicas.values()) {
          const seen = observed.get(`${m.row.namespace}/${r.id}`);
          observed.delete(`${m.row.namespace}/${r.id}`);
          if (up.has(r) && (!seen || seen.condition === "dead"))
            this.#exited({ ...r.identity, exitCode: -1, outOfMemory: false });
        }
      }
      for (const stranger of observed.values()) this.#dispose(stranger);
    } catch (e) {
      this.#o.log.warn({ err: messageOf(e) }, "reconciliation failed; it will be tried again");
    }
  }

  #manage(row: Row): Managed {
    const m = new Managed(row, this.#policy(row), (managed) => this.#wake(managed));
    this.#functions.set(m.key, m);
    this.#o.table.set(m.key, m.entry);
    return m;
  }

  #policy(row: Row): Policy {
    return policyOf(row.version.spec, this.#o.defaults);
  }

  /** Takes over a replica that runs since before us; false when it is of no use. */
  #adopt(o: ObservedReplica): boolean {
    const m = this.#functions.get(keyOf(o));
    if (!m || o.condition === "dead" || !o.address) return false;
    if (o.generation !== m.row.generation && o.generation !== m.row.previous?.generation) return false;
    const address = o.address;
    if (o.condition === "frozen") this.#adoptAsleep(m, o, address);
    else this.#bringUp(m, o, async () => address);
    return true;
  }

  /** It slept when napd ended and sleeps on: it was ready once, and the first call finds out whether it still is. */
  #adoptAsleep(m: Managed, { name, namespace, generation, number }: ReplicaIdentity, address: Address): void {
    const replica = new Replica({ name, namespace, generation, number });
    replica.connect(address);
    replica.readySince = this.#o.clock.monotonic();
    replica.move(["starting"], "frozen");
    m.replicas.set(replica.id, replica);
  }

  /** The heart: looks at what is wanted and what there is, and launches the difference. Never waits. */
  #step(m: Managed): void {
    if (!this.#opened || this.#closing) return;
    const count = m.countToKeep(this.#o.backend.can.freeze);
    const replicas = [...m.replicas.values()].map((replica) => ({
      replica,
      id: replica.id,
      state: replica.state,
      ...generationOf(replica),
    }));
    const { start, route, retire } = plan(m.deleted ? -1 : m.row.generation, count, replicas);
    // who was sent to sleep is not on the route, so that a call comes to `#wake`
    m.entry.routable = m.isAway ? [] : route.map((r) => r.replica);
    for (const { replica } of retire) this.#retire(m, replica);
    if (start.length > 0) this.#startDue(m, start);
    const complete = route.filter((r) => r.generation === m.row.generation).length >= count;
    if (complete && !m.deleted) this.#settle(m);
    if (m.entry.routable.length > 0) m.endCallers();
    if (m.deleted && m.replicas.size === 0) m.endDeletes();
  }

  #startDue(m: Managed, numbers: readonly number[]): void {
    const waitMs = m.retryAt - this.#o.clock.monotonic();
    if (waitMs > 0) {
      m.retryTimer ??= setTimeout(() => {
        m.retryTimer = null;
        this.#step(m);
      }, waitMs).unref();
      return;
    }
    const { spec, image } = m.row.version;
    for (const number of numbers) {
      const wanted = replicaSpec(spec, image, m.row.generation, number);
      this.#bringUp(m, wanted, (signal) => this.#startReplica(m, wanted, signal));
    }
  }

  async #startReplica(m: Managed, wanted: ReturnType<typeof replicaSpec>, signal: AbortSignal): Promise<Address> {
    try {
      return await this.#o.backend.start(wanted, signal);
    } catch (e) {
      if (!isAppError(e, "IMAGE_MISSING") || m.deleted) throw e;
      // the image went away under us (garbage collection, a wiped containerd): the deployed version names where it came from
      await this.#o.backend.prepare(wanted.namespace, wanted.image, "IfNotPresent", signal);
      return this.#o.backend.start(wanted, signal);
    }
  }

  /** From nothing, or from a running process, to ready or failed. */
  #bringUp(m: Managed, identity: ReplicaIdentity, start: (signal: AbortSignal) => Promise<Address>): void {
    const { name, namespace, generation, number } = identity;
    const replica = new Replica({ name, namespace, generation, number });
    m.replicas.set(replica.id, replica);
    const begin = this.#o.clock.monotonic();
    const run = async () => {
      try {
        const address = await start(replica.abort.signal);
        replica.connect(address);
        const { readyTimeoutMs, clock, backend } = this.#o;
        await becomeReady(replica, address, m.entry.policy.readyPath, readyTimeoutMs, backend, clock);
        replica.readySince = this.#o.clock.monotonic();
        if (replica.move(["starting"], "ready")) {
          m.reason = null;
          this.#o.log.info(
            { fn: m.key, replica: replica.id, ms: Math.round(replica.readySince - begin) },
            "replica ready",
          );
        }
      } catch (e) {
        replica.move(["starting"], "failed");
        this.#startFailed(m, replica, e);
      }
    };
    this.#track(run().then(() => this.#step(m)));
  }

  /** A version that never served goes back to the previous one, if there is one; else it is tried again, ever more slowly. */
  #startFailed(m: Managed, replica: Replica, error: unknown): void {
    // told to give up, by us: what the start says then does not matter
    const { aborted, reason } = replica.abort.signal;
    if (m.deleted || (aborted && (isAppError(reason, "SHUTTING_DOWN") || isAppError(reason, "SUPERSEDED")))) return;
    const generation = replica.identity.generation;
    const message = messageOf(error);
    this.#o.log.warn({ fn: m.key, replica: replica.id, err: message }, "replica failed to start");
    if (generation !== m.row.generation) return;
    const failed = m.row.version;
    if (m.row.previous) {
      const row = this.#o.store.fail(m.row, `update failed, the previous version serves: ${message}`);
      m.endDeploys((g) => g === generation, error);
      m.want(row, this.#policy(row));
      void this.releaseImage(m.row.namespace, failed.image);
    } else {
      this.#delayRetry(m, message);
      m.row = this.#o.store.fail(m.row, message);
    }
    m.endDeploys((g) => g === generation, error);
  }

  #delayRetry(m: Managed, reason: string): void {
    m.reason = reason;
    m.retryAt = this.#o.clock.monotonic() + (m.failures === 0 ? 0 : backoffMs(m.failures - 1, retryMinMs, retryMaxMs));
    m.failures++;
    if (m.failures < patience) return;
    m.endCallers(new AppError("FUNCTION_UNAVAILABLE", [m.key, reason]));
  }

  /** A process ended that we did not stop. */
  #exited(exit: ReplicaExit): void {
    const m = this.#functions.get(keyOf(exit));
    const replica = m?.replicas.get(replicaId(exit));
    if (!m || !replica || replica.state === "stopping" || replica.state === "failed") return;
    this.#track(
      exitReason(exit, m.row.version.spec.limits?.memory, this.#o.backend).then((error) => {
        if (replica.state === "starting") replica.abort.abort(error);
        if (!replica.move(servingStates, "failed")) return;
        this.#o.log.warn({ fn: m.key, replica: replica.id, err: error.message }, "replica lost");
        if (replica.readySince !== null && this.#o.clock.monotonic() - replica.readySince > stableMs) m.failures = 0;
        this.#delayRetry(m, error.message);
        this.#step(m);
      }),
    );
  }

  /** The wanted version serves. The reason of an update that was given up stays until the next version. */
  #settle(m: Managed): void {
    const { row } = m;
    if (row.previous || row.failure?.generation === row.generation) m.row = this.#o.store.settle(row);
    if (row.previous) void this.releaseImage(row.namespace, row.previous.version.image);
    const now = this.#o.clock.monotonic();
    const isStable = [...m.replicas.values()].some((r) => r.readySince !== null && now - r.readySince > stableMs);
    if (isStable) m.failures = 0;
    if (row.replicas > 0) m.proven = row.generation;
    else m.forgive(); // nothing is wanted, so nothing has failed: the next call tries anew
    m.endDeploys((g) => g === row.generation);
  }

  /** Drains, stops and forgets a replica. One that is starting is told to give up; its failure comes back here. */
  #retire(m: Managed, replica: Replica): void {
    if (replica.state === "starting") {
      replica.abort.abort(new AppError("SUPERSEDED", [m.row.name]));
      return;
    }
    const drains = replica.serves;
    if (!replica.move([...servingStates, "failed"], "stopping")) return;
    const { graceMs, backend, clock, log } = this.#o;
    const run = async () => {
      await replica.settled();
      if (drains) await within(replica.drained(), graceMs, clock);
      for (let attempt = 0; ; attempt++) {
        try {
          await backend.stop(replica.identity, drains ? graceMs : 0);
          break;
        } catch (e) {
          log.warn(
            { fn: m.key, replica: replica.id, err: messageOf(e) },
            "replica could not be removed; it will be tried again",
          );
          if (this.#closing) return;
          await clock.sleep(backoffMs(attempt, retryMinMs, retryMaxMs));
        }
      }
      await replica.disconnect();
      m.replicas.delete(replica.id);
    };
    this.#track(run().then(() => this.#step(m)));
  }

  /** A replica that nobody knows: a crash left it. */
  #dispose(stranger: ObservedReplica): void {
    const m = this.#functions.get(keyOf(stranger));
    this.#o.log.warn(
      { fn: keyOf(stranger), replica: replicaId(stranger) },
      "removing a replica that belongs to nobody",
    );
    if (!m) {
      this.#track(this.#o.backend.stop(stranger, 0));
      return;
    }
    // known function: takes its place in the table, so that nothing starts under its id meanwhile
    const { name, namespace, generation, number } = stranger;
    const replica = new Replica({ name, namespace, generation, number });
    replica.move(["starting"], "failed");
    m.replicas.set(replica.id, replica);
    this.#step(m);
  }

  /** Somebody calls and nobody serves. */
  #wake(m: Managed): Promise<void> {
    if (m.entry.routable.length > 0) return Promise.resolve();
    if (this.#closing) return Promise.reject(new AppError("SHUTTING_DOWN", []));
    if (m.failures >= patience)
      return Promise.reject(new AppError("FUNCTION_UNAVAILABLE", [m.key, m.reason ?? "it failed to start"]));
    const served = m.called();
    if (m.isAway) {
      m.row = this.#o.store.scale(m.row, m.row.replicas || m.entry.policy.minReplicas);
      this.#step(m);
    }
    return served;
  }

  /** Lets go of a prepared image unless a function needs it. */
  async releaseImage(namespace: string, image: string): Promise<void> {
    if (this.#images().some((i) => i.namespace === namespace && i.image === image)) return;
    await this.#o.backend
      .release(namespace, image)
      .catch((e) => this.#o.log.warn({ image, err: messageOf(e) }, "image could not be released"));
  }

  #images(): { namespace: string; image: string }[] {
    const of = (row: Row) =>
      [row.version, ...(row.previous ? [row.previous.version] : [])].map((v) => ({
        namespace: row.namespace,
        image: v.image,
      }));
    return this.#o.store.list().flatMap(of);
  }

  async #sweep(): Promise<void> {
    const replicas = [...this.#functions.values()].flatMap((m) => [...m.replicas.values()].map((r) => r.identity));
    await this.#o.backend.sweep({ replicas, functions: this.#o.store.list(), images: this.#images() });
  }

  #track(work: Promise<void>): void {
    const tracked = work
      .catch((e) =>
        this.#o.log.error(
          { err: messageOf(e), stack: e instanceof Error ? e.stack : undefined },
          "unexpected failure in a rollout",
        ),
      )
      .finally(() => this.#work.delete(tracked));
    this.#work.add(tracked);
  }
}

function generationOf(replica: Replica): { generation: number; number: number } {
  return { generation: replica.identity.generation, number: replica.identity.number };
}
