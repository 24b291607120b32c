import type { Clock } from "../base/clock.ts";
import { AppError, isAppError, messageOf } from "../base/errors.ts";
import { failpoint } from "../base/failpoints.ts";
import type { Logger } from "../base/log.ts";
import { type FunctionId, keyOf } from "../base/names.ts";
import { Pending } from "../base/pending.ts";
import type { FunctionStore } from "../store/functions.ts";
import type { Backend, ReplicaExit } from "./backend.ts";
import { replicaId } from "./backend.ts";
import { type ImagesInUse, imagesOf } from "./images-in-use.ts";
import { Lifecycle, type LifecycleTimes } from "./lifecycle.ts";
import { Managed, type Observed, type Row, type Version } from "./managed.ts";
import { plan } from "./plan.ts";
import { type Policy, type PolicyDefaults, readStored, replicaSpec, storedPolicyOf } from "./policy.ts";
import { exitReason, waitReady } from "./readiness.ts";
import { Reconciler } from "./reconcile.ts";
import { type Replica, servingStates } from "./replica.ts";
import { type Routes, routesOf } from "./routes.ts";
import type { Table } from "./table.ts";

export interface RolloutOptions extends LifecycleTimes {
  store: FunctionStore<Version>;
  images: ImagesInUse;
  backend: Backend;
  table: Table;
  routes: Routes;
  /** May change; `refresh` applies it to the functions that there are. */
  defaults: PolicyDefaults;
  /** How many replicas may be on their way up at once. */
  startsAtOnce: number;
  clock: Clock;
  log: Logger;
}

/** Between two looks for what nobody told, ms. */
const reconcileMs = 60_000;

/**
 * Makes reality match the store. Everything that can change the picture (a deploy, an exit, a finished start, a lost
 * connection, a slow timer) ends in `#step`, which is synchronous: it asks `plan`, swaps the route and launches what
 * is to be started or stopped. Whatever finishes calls it again. How a replica goes up and down is `lifecycle.ts`, the
 * comparison with the backend `reconcile.ts`, how failures are tried again `retries.ts`.
 */
export class Rollout implements AsyncDisposable {
  readonly #o: RolloutOptions;
  readonly #functions = new Map<string, Managed>();
  /** Deleted ones whose replicas are not gone yet. */
  readonly #leaving = new Set<Managed>();
  readonly #closing = new AbortController();
  /** Starts and stops under way. */
  readonly #work: Pending;
  readonly #lifecycle: Lifecycle;
  readonly #reconciler: Reconciler;
  #watch: Disposable | null = null;
  /** Until `open` has cleared away what is left, nothing is started: it would be cleared away too. */
  #opened = false;

  constructor(options: RolloutOptions) {
    this.#o = options;
    const { backend, log } = options;
    const closing = this.#closing.signal;
    const changed = (m: Managed) => this.#step(m);
    this.#work = new Pending((e) =>
      log.error(
        { err: messageOf(e), stack: e instanceof Error ? e.stack : undefined },
        "unexpected failure in a rollout",
      ),
    );
    this.#lifecycle = new Lifecycle({
      ...options,
      times: options,
      work: this.#work,
      closing,
      changed,
      failed: (m, replica, error) => this.#startFailed(m, replica, error),
      unhealthy: (m, replica, error) => this.#lost(m, replica, error),
    });
    this.#reconciler = new Reconciler({
      ...{ backend, log, closing, changed, lifecycle: this.#lifecycle },
      find: (id) => this.#functions.get(keyOf(id)),
      all: () => [...this.#functions.values(), ...this.#leaving],
      lost: (exit) => this.#exited(exit),
    });
  }

  /** Takes over what runs, removes what is nobody's, and starts what is missing. Then keeps it so. */
  async open(): Promise<void> {
    const { store, backend, log } = this.#o;
    for (const row of store.list()) this.#manage(row);
    const { adopted, removed } = await this.#reconciler.takeOver();
    const known = [...this.#functions.values()].flatMap((m) => [...m.replicas.values()].map((r) => r.identity));
    await backend.sweep({ replicas: known, functions: this.#rows(), images: this.#rows().flatMap(imagesOf) });
    this.#watch = backend.watch(
      (exit) => this.#exited(exit),
      () => void this.reconcile(),
    );
    void this.#reconcileNowAndThen();
    this.#opened = true;
    for (const m of this.#functions.values()) this.#step(m);
    log.info({ functions: this.#functions.size, adopted, removed }, "functions reconciled");
  }

  /** Tells those who wait for a deploy that napd stops: what was stored goes on with the next start. */
  endDeploys(): void {
    for (const m of this.#functions.values()) m.endDeploys(() => true, new AppError("SHUTTING_DOWN", []));
  }

  /** Stops deciding. Functions run on; see `removeAll`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    this.#watch?.[Symbol.dispose]();
    const all = [...this.#functions.values()];
    for (const m of all) {
      m.retries.cancel();
      m.endCallers(new AppError("SHUTTING_DOWN", []));
      m.endDeploys(() => true, new AppError("SHUTTING_DOWN", []));
      for (const r of m.replicas.values()) if (r.state === "starting") r.abort.abort(new AppError("SHUTTING_DOWN", []));
    }
    await this.#work.settled();
    await Promise.all(all.flatMap((m) => [...m.replicas.values()].map((r) => r.disconnect())));
  }

  /** Takes every replica down; what is deployed stays deployed. After closing. */
  async removeAll(): Promise<void> {
    const { backend, graceMs, store } = this.#o;
    const rows = store.list();
    await Promise.all((await backend.list()).map((r) => backend.stop(r, graceMs)));
    await backend.sweep({ replicas: [], functions: rows, images: rows.flatMap(imagesOf) });
  }

  observe(id: FunctionId): Observed | undefined {
    return this.#functions.get(keyOf(id))?.observed();
  }

  /** Those of one namespace, or all. */
  observeAll(namespace?: string): Observed[] {
    const all = [...this.#functions.values()];
    return (namespace === undefined ? all : all.filter((m) => m.row.namespace === namespace)).map((m) => m.observed());
  }

  /** Every function, with its replicas: for the scaler. */
  managed(): Iterable<Managed> {
    return this.#functions.values();
  }

  /** Applies what `defaults` say now to the functions that say nothing else. */
  refresh(): void {
    for (const m of this.#functions.values()) m.entry.policy = this.#policy(m.row);
  }

  /** Stops the replicas of a function that nobody calls; the next call starts them again. */
  stopIdle(m: Managed): void {
    if (m.deleted || this.#closing.signal.aborted) return;
    m.row = this.#record(() => this.#o.store.stop(m.row), { ...m.row, stopped: true });
    this.#o.log.info({ fn: m.key }, "stopped for want of calls");
    this.#step(m);
  }

  /** Whether there are functions in a namespace, or replicas of one that was deleted. */
  isBusyIn(namespace: string): boolean {
    return [...this.#functions.values(), ...this.#leaving].some((m) => m.row.namespace === namespace);
  }

  /** Brings a stored row (new, updated or scaled) into being; resolves when its version serves. */
  apply(row: Row): Promise<void> {
    const m = this.#functions.get(keyOf(row)) ?? this.#manage(row);
    this.#want(m, row);
    failpoint("rollout.applied");
    const done = m.deployed(row.generation);
    this.#step(m);
    return done;
  }

  /** What to go back to should a new version fail: what serves now or, if it just crashed, is known to work. */
  servingVersion(id: FunctionId): { version: Version; generation: number } | null {
    const m = this.#functions.get(keyOf(id));
    if (!m) return null;
    const { version, generation, previous } = m.row;
    if (previous) return previous;
    return m.proven === generation || m.isAway ? { version, generation } : null;
  }

  /** Takes a function down for good; resolves when nothing of it is left. The row is gone already. */
  async remove(id: FunctionId): Promise<void> {
    const m = this.#functions.get(keyOf(id));
    if (!m) return;
    m.deleted = true;
    m.retries.cancel();
    this.#functions.delete(keyOf(id));
    this.#leaving.add(m);
    this.#o.table.delete(m.key);
    this.#o.routes.assign(m.key, []);
    m.endDeploys(() => true, new AppError("FUNCTION_NOT_FOUND", [m.key]));
    m.endCallers(new AppError("FUNCTION_NOT_FOUND", [m.key]));
    const gone = m.gone();
    failpoint("rollout.leaving");
    this.#step(m);
    await gone;
    this.#leaving.delete(m);
    failpoint("rollout.gone");
    for (const { image } of imagesOf(m.row)) await this.releaseImage(m.row.namespace, image);
    // deployed again meanwhile: its logs are in the same place
    if (!this.#functions.has(keyOf(id))) await this.#o.backend.forget(id);
  }

  /** Compares with the backend: exits that were missed, replicas that nobody knows; and looks at everything anew. */
  async reconcile(): Promise<void> {
    await this.#reconciler.compare();
    for (const m of this.#functions.values()) this.#step(m);
  }

  /** Lets go of a prepared image unless somebody needs it. Never fails: what stays is released by the next sweep. */
  async releaseImage(namespace: string, image: string): Promise<void> {
    const { images, backend, log } = this.#o;
    await images
      .release({ namespace, image }, this.#rows(), () => backend.release(namespace, image))
      .catch((e) => log.warn({ image, err: messageOf(e) }, "image could not be released"));
  }

  #manage(row: Row): Managed {
    const m = new Managed(
      row,
      this.#policy(row),
      (managed) => this.#wake(managed),
      (managed, replica) => this.#work.add(this.#look(managed, replica)),
    );
    this.#functions.set(m.key, m);
    this.#o.table.set(m.key, m.entry);
    this.#o.routes.assign(m.key, readStored(row.version.spec, routesOf));
    return m;
  }

  #want(m: Managed, row: Row): void {
    m.want(row, this.#policy(row));
    this.#o.routes.assign(m.key, readStored(row.version.spec, routesOf));
  }

  #policy(row: Row): Policy {
    return storedPolicyOf(row.version.spec, this.#o.defaults);
  }

  #rows(): Row[] {
    return [...this.#functions.values()].map((m) => m.row);
  }

  /** The heart: looks at what is wanted and what there is, and launches the difference. Never waits. */
  #step(m: Managed): void {
    if (!this.#opened || this.#closing.signal.aborted) return;
    const count = m.countToKeep(this.#o.backend.can.freeze);
    const replicas = [...m.replicas.values()].map((replica) => {
      const { id, state, adopted, identity } = replica;
      return { replica, id, state, adopted, generation: identity.generation, number: identity.number };
    });
    const { start, route, retire } = plan(m.deleted ? -1 : m.row.generation, count, replicas);
    // who was sent to sleep is not on the route, so that a call comes to `#wake`; and what one said before it fell
    // asleep says nothing about how it wakes up
    const mayServe = (r: Replica) => !r.isDoubted && (r.refusal === null || r.isAsleep);
    m.entry.routable = m.isAway ? [] : route.map((r) => r.replica).filter(mayServe);
    const complete = route.filter((r) => r.generation === m.row.generation).length >= count;
    if (complete) failpoint("rollout.switched");
    for (const { replica } of retire) this.#lifecycle.retire(m, replica);
    if (start.length > 0) this.#startDue(m, start);
    if (complete && !m.deleted) this.#settle(m);
    if (m.entry.routable.length > 0) m.endCallers();
    if (m.deleted && m.replicas.size === 0) m.endDeletes();
  }

  #startDue(m: Managed, numbers: readonly number[]): void {
    if (!m.retries.isDue(this.#o.clock, () => this.#step(m))) return;
    const { spec, image } = m.row.version;
    for (const number of numbers)
      this.#lifecycle.start(m, replicaSpec(spec, image, m.entry.policy, m.row.generation, number));
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
      const row = this.#fail(m.row, `update failed, the previous version serves: ${message}`);
      m.endDeploys((g) => g === generation, error);
      this.#want(m, row);
      void this.releaseImage(m.row.namespace, failed.image);
    } else {
      this.#delayRetry(m, replica, error);
      m.row = this.#fail(m.row, message);
    }
    m.endDeploys((g) => g === generation, error);
  }

  #delayRetry(m: Managed, { exitCode }: Replica, error: unknown): void {
    const reason = messageOf(error);
    const { clock } = this.#o;
    m.retries.failed({ reason, at: clock.now(), ...(exitCode !== null && { exitCode }) }, clock.monotonic());
    if (m.retries.hopeless) m.endCallers(new AppError("FUNCTION_UNAVAILABLE", [m.key, reason]));
  }

  /** A process ended that we did not stop. */
  #exited(exit: ReplicaExit): void {
    const m = this.#functions.get(keyOf(exit));
    const replica = m?.replicas.get(replicaId(exit));
    if (!m || !replica || replica.state === "stopping" || replica.state === "failed") return;
    this.#work.add(
      exitReason(exit, m.row.version.spec.limits?.memory, replica.serves, this.#o.backend).then((error) => {
        replica.exitCode = exit.exitCode;
        if (replica.state === "starting") replica.abort.abort(error);
        else this.#lost(m, replica, error);
      }),
    );
  }

  /** A replica has refused a call: is its process gone, and we have not heard of it, or only its port closed? */
  async #look(m: Managed, replica: Replica): Promise<void> {
    await this.reconcile();
    const { readyTimeoutMs, clock } = this.#o;
    const probes = m.probes(replica.identity.generation);
    const soon = { ...probes, ready: { ...probes.ready, initialDelayMs: 0 } };
    const wrong =
      replica.state === "ready"
        ? await waitReady(replica.address!, soon, readyTimeoutMs, clock, replica.down.signal).catch(() => null)
        : null;
    replica.isDoubted = false;
    if (wrong === null) this.#step(m);
    else this.#lost(m, replica, new AppError("REPLICA_NOT_READY", [replica.id, readyTimeoutMs, wrong]));
  }

  /** A replica that served is of no use any more: it is replaced, ever more slowly if that happens often. */
  #lost(m: Managed, replica: Replica, error: AppError): void {
    replica.lostBecause = error.message;
    if (!replica.move(servingStates, "failed")) return;
    this.#o.log.warn({ fn: m.key, replica: replica.id, err: error.message }, "replica lost");
    m.retries.served(replica.readySince, this.#o.clock.monotonic());
    this.#delayRetry(m, replica, error);
    this.#step(m);
  }

  /** The wanted version serves. The reason of an update that was given up stays until the next version. */
  #settle(m: Managed): void {
    const { row } = m;
    if (row.previous || row.failure?.generation === row.generation) {
      // if it cannot be written, the next step tries again; a restart meanwhile finds the new version and starts it
      m.row = this.#record(() => this.#o.store.settle(row), row);
      failpoint("rollout.settled");
    }
    if (row.previous && !m.row.previous) void this.releaseImage(row.namespace, row.previous.version.image);
    const now = this.#o.clock.monotonic();
    for (const r of m.replicas.values()) m.retries.served(r.readySince, now);
    if (row.replicas > 0) m.proven = row.generation;
    else m.retries.forgive(); // nothing is wanted, so nothing has failed: the next call tries anew
    m.endDeploys((g) => g === row.generation);
  }

  /** Somebody calls and nobody serves. */
  #wake(m: Managed): Promise<void> {
    if (m.entry.routable.length > 0) return Promise.resolve();
    if (this.#closing.signal.aborted) return Promise.reject(new AppError("SHUTTING_DOWN", []));
    if (m.retries.hopeless)
      return Promise.reject(new AppError("FUNCTION_UNAVAILABLE", [m.key, m.retries.reason ?? "it failed to start"]));
    const served = m.called();
    this.#lifecycle.hurry(m);
    if (m.isAway) {
      const replicas = m.row.replicas || m.entry.policy.minReplicas;
      m.row = this.#record(() => this.#o.store.scale(m.row, replicas), { ...m.row, replicas, stopped: false });
      this.#step(m);
    }
    return served;
  }

  /** A version has failed: the row as it is from now on. */
  #fail(row: Row, reason: string): Row {
    const failure = { generation: row.generation, reason };
    return this.#record(() => this.#o.store.fail(row, reason), { ...row, ...row.previous, previous: null, failure });
  }

  /** Writes down what has happened. It has happened all the same when the disk is full: then `fallback` is the row. */
  #record(write: () => Row, fallback: Row): Row {
    try {
      return write();
    } catch (e) {
      this.#o.log.warn({ fn: keyOf(fallback), err: messageOf(e) }, "the state of a function could not be written");
      return fallback;
    }
  }

  async #reconcileNowAndThen(): Promise<void> {
    const { clock } = this.#o;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await clock.sleep(reconcileMs, signal).catch(() => {});
      if (!signal.aborted) await this.reconcile();
    }
  }
}
