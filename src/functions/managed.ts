import { AppError } from "../base/errors.ts";
import type { FunctionRow } from "../store/functions.ts";
import type { CallStats } from "./call-stats.ts";
import type { Policy } from "./policy.ts";
import { type Probes, probesOf } from "./probes.ts";
import type { Replica } from "./replica.ts";
import { type Failure, Retries } from "./retries.ts";
import type { FunctionSpec } from "./spec.ts";
import { Entry } from "./table.ts";

/** One version of a function: what was asked for, and the image that it came to. */
export interface Version {
  readonly spec: FunctionSpec;
  /** Backend.prepare's answer. */
  readonly image: string;
}

export type Row = FunctionRow<Version>;

/** What is known of a function right now, for the status that users see. */
export interface Observed {
  readonly row: Row;
  /** Answering now, or after a wake. */
  readonly available: number;
  readonly calls: CallStats;
  readonly policy: Policy;
  /** Replicas by state. */
  readonly states: Readonly<Record<string, number>>;
  readonly starting: boolean;
  readonly reason: string | null;
  /** Replicas of this version that were started again since napd runs, and why the last one was. */
  readonly restarts: number;
  readonly lastFailure: Failure | null;
}

interface Waiter {
  resolve: () => void;
  reject: (error: unknown) => void;
}

/** A function under the rollout's management: what is wanted, the replicas that there are, and who waits for what. */
export class Managed {
  row: Row;
  readonly entry: Entry;
  readonly replicas = new Map<string, Replica>();
  retries = new Retries();
  deleted = false;
  /** The generation that was complete last: it is known to work. */
  proven: number | null = null;
  /** Deploys: wait until their version serves. */
  #deploys: (Waiter & { generation: number })[] = [];
  /** Calls: wait until anybody serves. */
  #callers: Waiter[] = [];
  /** Deletes: wait until nothing is left. */
  #deletes: (() => void)[] = [];

  /** `wake` is asked when a call finds nobody who serves, `doubt` when a replica has refused one. */
  constructor(
    row: Row,
    policy: Policy,
    wake: (m: Managed) => Promise<void>,
    doubt: (m: Managed, replica: Replica) => void,
  ) {
    this.row = row;
    this.entry = new Entry(
      { name: row.name, namespace: row.namespace },
      policy,
      () => wake(this),
      (r) => doubt(this, r),
    );
  }

  get key(): string {
    return this.entry.key;
  }

  /** Nobody is to serve until a call comes: it was scaled to 0, or stopped for want of calls. */
  get isAway(): boolean {
    return this.row.stopped || this.row.replicas === 0;
  }

  /**
   * How many replicas are to be there. Scaled to 0, those that are there sleep on, up to the number that a call
   * brings back: so a call finds them after a thaw and not after a start. That is for the scaler to end by stopping them.
   */
  countToKeep(canFreeze: boolean): number {
    const { row } = this;
    if (this.deleted || row.stopped) return 0;
    const { minReplicas, scale } = this.entry.policy;
    if (row.replicas > 0 || !canFreeze || scale.stopAfterMs === 0) return row.replicas;
    const serving = new Set(
      [...this.replicas.values()]
        // adopted and starting: it runs and is being looked at
        .filter((r) => (r.serves || (r.adopted && r.state === "starting")) && r.identity.generation === row.generation)
        .map((r) => r.identity.number),
    );
    let count = 0;
    while (count < minReplicas && serving.has(count)) count++;
    return count;
  }

  /** A new wish: what failed before does not count for it. */
  want(row: Row, policy: Policy): void {
    if (this.row.generation !== row.generation) {
      this.retries.cancel();
      this.retries = new Retries();
      this.endDeploys((g) => g < row.generation, new AppError("SUPERSEDED", [row.name]));
    }
    this.row = row;
    this.entry.policy = policy;
  }

  /** How replicas of a generation are asked: while an update goes on, those of the version that serves in its own way. */
  probes(generation: number): Probes {
    const { version, previous } = this.row;
    const { spec } = previous?.generation === generation ? previous.version : version;
    return probesOf(spec.annotations ?? {});
  }

  deployed(generation: number): Promise<void> {
    return new Promise((resolve, reject) => this.#deploys.push({ generation, resolve, reject }));
  }

  /** Ends the deploys of some generations: well, or with an error. */
  endDeploys(which: (generation: number) => boolean, error?: unknown): void {
    const ended = this.#deploys.filter((d) => which(d.generation));
    this.#deploys = this.#deploys.filter((d) => !which(d.generation));
    for (const deploy of ended) end(deploy, error);
  }

  /** Somebody waits for a replica: a deploy or a call. */
  get awaited(): boolean {
    return this.#deploys.length > 0 || this.#callers.length > 0;
  }

  called(): Promise<void> {
    return new Promise((resolve, reject) => this.#callers.push({ resolve, reject }));
  }

  /** Ends the waiting of all calls: somebody serves, or nobody will. */
  endCallers(error?: unknown): void {
    for (const caller of this.#callers.splice(0)) end(caller, error);
  }

  gone(): Promise<void> {
    return new Promise((resolve) => this.#deletes.push(resolve));
  }

  endDeletes(): void {
    for (const resolve of this.#deletes.splice(0)) resolve();
  }

  observed(): Observed {
    const replicas = [...this.replicas.values()];
    return {
      row: this.row,
      available: this.row.stopped ? this.row.replicas : this.entry.routable.length,
      calls: this.entry.calls,
      policy: this.entry.policy,
      states: statesOf(replicas),
      starting: replicas.some((r) => r.state === "starting"),
      reason: this.retries.reason ?? this.row.failure?.reason ?? refusalOf(replicas),
      restarts: this.retries.restarts,
      lastFailure: this.retries.last,
    };
  }
}

function end(waiter: Waiter, error: unknown): void {
  if (error === undefined) waiter.resolve();
  else waiter.reject(error);
}

function statesOf(replicas: readonly Replica[]): Record<string, number> {
  const states: Record<string, number> = {};
  for (const { state } of replicas) states[state] = (states[state] ?? 0) + 1;
  return states;
}

/** Why one of them is sent no requests for now. */
function refusalOf(replicas: readonly Replica[]): string | null {
  const refusing = replicas.find((r) => r.state === "ready" && r.refusal !== null);
  return refusing ? `replica ${refusing.id} is not ready: ${refusing.refusal}` : null;
}
