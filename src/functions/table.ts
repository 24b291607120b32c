import type { FunctionId } from "../base/names.ts";
import { keyOf } from "../base/names.ts";
import { Admission } from "./admission.ts";
import { CallStats } from "./call-stats.ts";
import type { Policy } from "./policy.ts";
import type { Replica } from "./replica.ts";

/** What a request needs to know of a function: who answers, for how long, and how to get somebody to answer. */
export class Entry {
  readonly id: FunctionId;
  readonly key: string;
  policy: Policy;
  /** Who can be sent a request; replaced as a whole, never changed in place. */
  routable: readonly Replica[] = [];
  /** Of every call that found this function, whatever came of it. */
  readonly calls = new CallStats();
  /** Who may run now, when their number is limited, and who waits. */
  readonly admission = new Admission();
  readonly #wake: () => Promise<void>;
  readonly #doubt: (replica: Replica) => void;
  #turn = 0;

  /**
   * `wake` resolves when `routable` has somebody, and rejects with the reason why nobody will come. `doubt` has a
   * replica looked at that refused a call.
   */
  constructor(id: FunctionId, policy: Policy, wake: () => Promise<void>, doubt: (replica: Replica) => void = () => {}) {
    this.id = id;
    this.key = keyOf(id);
    this.policy = policy;
    this.#wake = wake;
    this.#doubt = doubt;
  }

  /**
   * The replica with the fewest requests in flight, undefined when there is none. Equals take turns; one that sleeps
   * comes after an equal that is awake, so that only load wakes it.
   */
  pick(): Replica | undefined {
    const { routable } = this;
    const count = routable.length;
    if (count <= 1) return routable[0];
    const first = this.#turn++ % count;
    let best: Replica | undefined;
    let bestLoad = Number.POSITIVE_INFINITY;
    for (let i = 0; i < count; i++) {
      const replica = routable[(first + i) % count]!;
      const load = replica.isAsleep ? replica.inFlight + 0.5 : replica.inFlight;
      if (load < bestLoad) {
        best = replica;
        bestLoad = load;
      }
    }
    return best;
  }

  /** Makes the function answer again; many callers share one wake-up. */
  wake(): Promise<void> {
    return this.#wake();
  }

  /** Takes a replica that refused a call off the route at once, until somebody has looked at it. */
  doubt(replica: Replica): void {
    if (replica.isDoubted || !this.routable.includes(replica)) return;
    replica.isDoubted = true;
    this.routable = this.routable.filter((r) => r !== replica);
    this.#doubt(replica);
  }
}

/** The routing table: `NAME.NAMESPACE` to entry. */
export type Table = Map<string, Entry>;
