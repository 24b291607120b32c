import { Pool } from "../upstream/pool.ts";
import type { Address, Backend, ReplicaIdentity } from "./backend.ts";
import { replicaId } from "./backend.ts";

/**
 *   absent ─► starting ─► ready ─► freezing ─► frozen
 *                │          │ ▲───────┘ │         │ │
 *                │          │ ▲─────────│─────────┘ │
 *                ▼          ▼           ▼           │
 *              failed ─► stopping ◄─────┴───────────┘ ─► absent
 *
 * One that is found frozen when napd starts goes from `starting` to `frozen` and sleeps on.
 * `failed` has no process any more, or one that cannot be used, and still holds its container, network and files;
 * `stopping` drains its requests and gives all of that back. Absent replicas are not in any table.
 */
export type ReplicaState = "starting" | "ready" | "freezing" | "frozen" | "failed" | "stopping";

/** In these it answers now, or would after a wake. */
export const servingStates = ["ready", "freezing", "frozen"] as const satisfies ReplicaState[];

const moves: Record<ReplicaState, readonly ReplicaState[]> = {
  starting: ["ready", "frozen", "failed"],
  ready: ["freezing", "failed", "stopping"],
  freezing: ["ready", "frozen", "failed", "stopping"],
  frozen: ["ready", "failed", "stopping"],
  failed: ["stopping"],
  stopping: [],
};

/** One replica of a function, as the gateway and the rollout see it. */
export class Replica {
  readonly identity: ReplicaIdentity;
  readonly id: string;
  /** Requests that were sent to it and have not ended, counted before a wake. Owned by invoke. */
  inFlight = 0;
  /** Aborts the start that is under way. */
  readonly abort = new AbortController();
  /** Aborts the grace of its stop, because somebody waits for its place. */
  readonly hurry = new AbortController();
  /** Where it answers, once that is known. */
  address: Address | null = null;
  /** Connections of calls, from the moment that its address is known. */
  pool: Pool | null = null;
  /** It refused a call and nobody has looked at it since: it is sent nothing. */
  isDoubted = false;
  /** Why it is gone, in a sentence; null while it is not. */
  lostBecause: string | null = null;
  /** Its process ran before napd did. */
  readonly adopted: boolean;
  /** What its readiness probe says against sending it requests; null while nothing does. */
  refusal: string | null = null;
  /** Of its process; null while it runs, or when nobody saw it end. */
  exitCode: number | null = null;
  /** Aborts when it has failed, is stopped, or is let go of: nobody is to look after it any more. */
  readonly down = new AbortController();
  /** How often its state has changed. */
  moves = 0;
  /** When it got ready, on the monotonic clock, ms; null before. */
  readySince: number | null = null;
  #state: ReplicaState = "starting";
  /** The freeze or thaw under way: there is never more than one. */
  #moving: Promise<void> | null = null;
  #drained: (() => void) | null = null;

  constructor(identity: ReplicaIdentity, adopted = false) {
    this.identity = identity;
    this.adopted = adopted;
    this.id = replicaId(identity);
  }

  get state(): ReplicaState {
    return this.#state;
  }

  /** Whether it answers now or would after a thaw. */
  get serves(): boolean {
    return (servingStates as readonly ReplicaState[]).includes(this.#state);
  }

  get isAsleep(): boolean {
    return this.#state === "frozen" || this.#state === "freezing";
  }

  /**
   * Moves only from one of `from`; false when something else came first, which is for the caller to decide. A move
   * that the picture above lacks throws: that is a bug. Synchronous, so nothing comes between check and move.
   */
  move(from: readonly ReplicaState[], to: ReplicaState): boolean {
    if (!from.includes(this.#state)) return false;
    if (!moves[this.#state].includes(to))
      throw new Error(`replica ${this.id}: ${this.#state} -> ${to} is not a legal move`);
    this.#state = to;
    if (to === "frozen") this.pool?.closeIdle();
    this.moves++;
    if (!this.serves) this.down.abort();
    return true;
  }

  connect(address: Address): void {
    this.address = address;
    this.pool = new Pool(address.host, address.port);
  }

  /** Wakes one that sleeps, or is about to; all callers share one thaw, and none can cancel it. */
  async ensureAwake(thaw: (replica: ReplicaIdentity) => Promise<void>): Promise<void> {
    while (this.isAsleep) {
      this.#moving ??= thaw(this.identity)
        .then(() => void this.move(["frozen"], "ready"))
        .finally(() => {
          this.#moving = null;
        });
      await this.#moving;
    }
  }

  /**
   * Freezes one that has nothing to do; false when it has, or is not awake. Requests that come meanwhile are counted
   * in and wait in `ensureAwake`, which thaws it again. A failed freeze is undone, since nobody knows how far it came,
   * and then told; where that fails too, the replica counts as frozen, so that the next request tries to thaw it.
   */
  async fallAsleep(backend: Pick<Backend, "freeze" | "thaw">): Promise<boolean> {
    if (this.inFlight > 0 || this.#moving || !this.move(["ready"], "freezing")) return false;
    const freezing = backend.freeze(this.identity).then(
      () => void this.move(["freezing"], "frozen"),
      async (e) => {
        const undone = backend.thaw(this.identity).then(
          () => "ready" as const,
          () => "frozen" as const,
        );
        this.move(["freezing"], await undone);
        throw e;
      },
    );
    this.#moving = freezing
      .catch(() => {})
      .finally(() => {
        this.#moving = null;
      });
    await freezing;
    return true;
  }

  /** Resolves when no freeze or thaw is under way. */
  async settled(): Promise<void> {
    await this.#moving?.catch(() => {});
  }

  /** One request ended. */
  release(): void {
    this.inFlight--;
    if (this.inFlight === 0) this.#drained?.();
  }

  /** Resolves when no request is in flight. */
  drained(): Promise<void> {
    if (this.inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#drained = resolve;
    });
  }

  /** Why it is gone, if that is known within `ms`; else null. */
  async lost(ms: number): Promise<string | null> {
    const { signal } = this.down;
    if (!signal.aborted)
      await new Promise<void>((resolve) => {
        const end = () => {
          clearTimeout(timer);
          signal.removeEventListener("abort", end);
          resolve();
        };
        const timer = setTimeout(end, ms);
        signal.addEventListener("abort", end);
      });
    return this.lostBecause;
  }

  /** Closes the connections; requests that still run are cut. */
  async disconnect(): Promise<void> {
    this.down.abort();
    this.pool?.destroy(new Error(this.lostBecause ?? "its replica was stopped"));
  }
}
