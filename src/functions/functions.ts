import { type Clock, within } from "../base/clock.ts";
import { AppError } from "../base/errors.ts";
import { failpoint } from "../base/failpoints.ts";
import { KeyedQueue } from "../base/keyed-queue.ts";
import { type FunctionId, keyOf } from "../base/names.ts";
import type { FunctionStore } from "../store/functions.ts";
import type { Backend, LogLine, LogQuery } from "./backend.ts";
import type { ImagesInUse } from "./images-in-use.ts";
import type { Row, Version } from "./managed.ts";
import { type Policy, type PolicyDefaults, policyOf, storedPolicyOf } from "./policy.ts";
import type { Rollout } from "./rollout.ts";
import type { Routes } from "./routes.ts";
import { type Sample, sampleOf } from "./samples.ts";
import { alertedReplicas } from "./scale-policy.ts";
import type { FunctionSpec } from "./spec.ts";
import { type FunctionStatus, statusOf } from "./status.ts";

export interface FunctionsOptions {
  store: FunctionStore<Version>;
  images: ImagesInUse;
  backend: Backend;
  rollout: Rollout;
  routes: Routes;
  defaults: PolicyDefaults;
  /** Ms that a deploy waits until the function serves. */
  deployWaitMs: number;
  namespaces: () => readonly string[];
  hasSecret: (namespace: string, name: string) => Promise<boolean>;
  clock: Clock;
}

/** What came of a deploy: the function serves, or the time to wait for it is over and the rollout goes on. */
export type DeployOutcome = "serving" | "continues";

/** `create` and `update` refuse what the other one is for; `upsert` does what is due. */
export type DeployKind = "create" | "update" | "upsert";

/** The functions of this daemon, as the API and the command line work with them. */
export class Functions {
  readonly #o: FunctionsOptions;
  /** Changes of one function happen one after the other. */
  readonly #changes = new KeyedQueue<string>();
  /** Deployments under way, by namespace: what they fetch must not outlive it. */
  readonly #deploying = new Map<string, number>();

  constructor(options: FunctionsOptions) {
    this.#o = options;
  }

  /**
   * The way of a deploy: everything that can be known is checked and the image is fetched before anything changes;
   * then the wish is stored, and from here on survives a crash; then the rollout makes it real. A failed update leaves
   * the previous version serving. Fails with BAD_FUNCTION, NAMESPACE_NOT_FOUND, SECRET_MISSING, ROUTE_TAKEN, IMAGE_*,
   * FUNCTION_EXISTS or FUNCTION_NOT_FOUND (nothing has changed), START_FAILED, REPLICA_* or SUPERSEDED.
   */
  async deploy(spec: FunctionSpec, kind: DeployKind, signal?: AbortSignal): Promise<DeployOutcome> {
    const count = (by: number) => this.#deploying.set(spec.namespace, (this.#deploying.get(spec.namespace) ?? 0) + by);
    count(1);
    try {
      return await this.#deploy(spec, kind, signal);
    } finally {
      if (count(-1).get(spec.namespace) === 0) this.#deploying.delete(spec.namespace);
    }
  }

  async #deploy(spec: FunctionSpec, kind: DeployKind, signal?: AbortSignal): Promise<DeployOutcome> {
    const policy = policyOf(spec, this.#o.defaults);
    await this.#checkPlace(spec, kind);
    this.#checkRoutes(spec);
    const { namespace } = spec;
    const prepared = await this.#o.images.prepare(namespace, () =>
      this.#o.backend.prepare(namespace, spec.image, policy.pullPolicy, signal),
    );
    const { image } = prepared;
    try {
      using _ = prepared;
      failpoint("deploy.prepared");
      const { applied } = await this.#changes.run(keyOf(spec), async () => {
        await this.#checkPlace(spec, kind); // a pull takes its time: look again
        this.#checkRoutes(spec); // nothing waits between this and the write, so nobody can come in between
        return { applied: this.#o.rollout.apply(this.#write(spec, { spec, image }, policy)) };
      });
      return await this.#patiently(applied);
    } catch (e) {
      await this.#o.rollout.releaseImage(spec.namespace, image);
      throw e;
    }
  }

  /** Waits for a rollout, but not for ever. */
  async #patiently(applied: Promise<void>): Promise<DeployOutcome> {
    applied.catch(() => {}); // it may fail when nobody waits any more; the function's status says so
    return (
      (await within(
        applied.then(() => "serving" as const),
        this.#o.deployWaitMs,
        this.#o.clock,
      )) ?? "continues"
    );
  }

  /** Resolves when nothing is left of the function. Fails with NAMESPACE_NOT_FOUND or FUNCTION_NOT_FOUND. */
  async remove(id: FunctionId): Promise<void> {
    this.#checkNamespace(id.namespace);
    const gone = await this.#changes.run(keyOf(id), async () => {
      if (!this.#o.store.get(id)) throw new AppError("FUNCTION_NOT_FOUND", [keyOf(id)]);
      this.#o.store.delete(id);
      return { done: this.#o.rollout.remove(id) };
    });
    await gone.done;
  }

  /** Asks for so many replicas, within the function's least and most; 0 lets it sleep until somebody calls. */
  async scale(id: FunctionId, replicas: number): Promise<void> {
    this.#checkNamespace(id.namespace);
    await this.#changes.run(keyOf(id), async () => {
      const row = this.#o.store.get(id);
      if (!row) throw new AppError("FUNCTION_NOT_FOUND", [keyOf(id)]);
      const { minReplicas, maxReplicas } = storedPolicyOf(row.version.spec, this.#o.defaults);
      this.#scale(id, replicas === 0 ? 0 : Math.min(Math.max(replicas, minReplicas), maxReplicas));
    });
  }

  /** Follows an alert of Alertmanager. One about a function that does not exist is none of ours. */
  async alert(id: FunctionId, firing: boolean): Promise<void> {
    await this.#changes.run(keyOf(id), async () => {
      const row = this.#o.store.get(id);
      if (!row || (row.stopped && !firing)) return;
      const { minReplicas, maxReplicas, scale } = storedPolicyOf(row.version.spec, this.#o.defaults);
      const replicas = alertedReplicas(firing, row.replicas, { minReplicas, maxReplicas, ...scale });
      if (replicas !== row.replicas) this.#scale(id, replicas);
    });
  }

  #scale(id: FunctionId, replicas: number): void {
    this.#o.rollout.apply(this.#o.store.scale(id, replicas)).catch(() => {});
  }

  /** Sorted by name. Fails with NAMESPACE_NOT_FOUND. */
  list(namespace: string): FunctionStatus[] {
    this.#checkNamespace(namespace);
    return this.#o.rollout
      .observeAll(namespace)
      .map(statusOf)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  get(id: FunctionId): FunctionStatus | undefined {
    this.#checkNamespace(id.namespace);
    const observed = this.#o.rollout.observe(id);
    return observed && statusOf(observed);
  }

  /** What stands in the way of deleting a namespace, in words; null when nothing does. */
  occupants(namespace: string): string | null {
    const count = this.#o.store.list().filter((row) => row.namespace === namespace).length;
    if (count > 0) return count === 1 ? "a function" : `${count} functions`;
    if (this.#deploying.has(namespace)) return "deployments under way";
    return this.#o.rollout.isBusyIn(namespace) ? "functions that are being deleted" : null;
  }

  /** Of all functions, for metrics. */
  samples(): Sample[] {
    return this.#o.rollout.observeAll().map(sampleOf);
  }

  /** Output of a function that exists or has existed. Fails with FUNCTION_NOT_FOUND. */
  async logs(query: LogQuery, signal: AbortSignal): Promise<AsyncIterable<LogLine>> {
    if (!this.#o.store.get(query) && !(await this.#o.backend.remembers(query)))
      throw new AppError("FUNCTION_NOT_FOUND", [keyOf(query)]);
    return this.#o.backend.logs(query, signal);
  }

  #checkNamespace(namespace: string): void {
    if (!this.#o.namespaces().includes(namespace)) throw new AppError("NAMESPACE_NOT_FOUND", [namespace]);
  }

  async #checkPlace(spec: FunctionSpec, kind: DeployKind): Promise<void> {
    this.#checkNamespace(spec.namespace);
    const exists = this.#o.store.get(spec) !== undefined;
    if (kind === "create" && exists) throw new AppError("FUNCTION_EXISTS", [keyOf(spec)]);
    if (kind === "update" && !exists) throw new AppError("FUNCTION_NOT_FOUND", [keyOf(spec)]);
    for (const secret of new Set(spec.secrets)) {
      if (!(await this.#o.hasSecret(spec.namespace, secret)))
        throw new AppError("SECRET_MISSING", [secret, spec.namespace]);
    }
  }

  #checkRoutes(spec: FunctionSpec): void {
    this.#o.routes.check(spec, () => this.#o.store.list());
  }

  #write(spec: FunctionSpec, version: Version, policy: Policy): Row {
    const { store, rollout, clock } = this.#o;
    const generation = store.nextGeneration();
    const before = store.get(spec);
    if (!before) return store.insert(spec, version, generation, policy.minReplicas, clock.now());
    const replicas = Math.min(policy.maxReplicas, Math.max(policy.minReplicas, before.replicas));
    return store.update(spec, version, generation, rollout.servingVersion(spec), replicas);
  }
}
