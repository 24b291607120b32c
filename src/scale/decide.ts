/** What the scaler decides, apart from time and effects: every function here is pure, every class only remembers. */

/** What one tick sees of a function; times in ms on the scaler's own clock. */
export interface Sight {
  readonly now: number;
  /** The last call ended, or the last replica got ready. */
  readonly activeAt: number;
  /** Since when nobody is awake; null while somebody is. */
  readonly asleepAt: number | null;
  readonly inFlight: number;
  /** Replicas that are awake, and that are frozen. */
  readonly awake: number;
  readonly frozen: number;
  /** Replicas come or go: a rollout is under way. */
  readonly isChanging: boolean;
  /** Replicas that are asked for; 0: somebody sent the function to sleep. */
  readonly wanted: number;
  readonly canFreeze: boolean;
  readonly policy: { readonly sleeps: boolean; readonly idleMs: number; readonly stopAfterMs: number };
}

/** Leave it as it is, freeze whoever is awake, or stop all replicas until somebody calls. */
export type SleepDecision = "leave" | "freeze" | "stop";

export function decideSleep(s: Sight): SleepDecision {
  if (s.isChanging || s.inFlight > 0) return "leave";
  if (s.awake > 0) {
    const isIdle = s.wanted === 0 || (s.policy.sleeps && s.now - s.activeAt >= s.policy.idleMs);
    if (!isIdle) return "leave";
    return s.canFreeze && s.policy.stopAfterMs > 0 ? "freeze" : "stop";
  }
  const isLongAsleep = s.frozen > 0 && s.asleepAt !== null && s.now - s.asleepAt >= s.policy.stopAfterMs;
  return isLongAsleep ? "stop" : "leave";
}

/**
 * Replicas that a load asks for: contracts/api.md §3.5 in the form ceil(whole load / load that one is to carry),
 * which is the same as theirs with the mean load times the replicas.
 */
export function replicasFor(load: number, loadPerReplica: number, min: number, max: number): number {
  const exact = load / loadPerReplica;
  return Math.min(max, Math.max(min, Math.ceil(exact - 1e-9))); // 9 / (10 × 0.9) is not to become 2
}

/** How fast a counter grows, over the last `windowMs`. A counter that is young is taken to have stood still before. */
export class Rate {
  readonly #windowMs: number;
  readonly #samples: { at: number; total: number }[] = [];

  constructor(windowMs: number) {
    this.#windowMs = windowMs;
  }

  /** Takes the counter's value; answers with its growth a second. */
  add(now: number, total: number): number {
    const samples = this.#samples;
    samples.push({ at: now, total });
    while (samples.length > 1 && samples[1]!.at <= now - this.#windowMs) samples.shift();
    const oldest = samples[0]!;
    return ((total - oldest.total) / Math.max(this.#windowMs, now - oldest.at)) * 1000;
  }
}

/** The highest of the values of the last `windowMs`. Keeps only values that can still become the highest. */
export class Highest {
  readonly #values: { at: number; value: number }[] = [];

  add(now: number, value: number): void {
    while (this.#values.length > 0 && this.#values.at(-1)!.value <= value) this.#values.pop();
    this.#values.push({ at: now, value });
  }

  /** Undefined when there is none; the last one counts however old it is. */
  within(windowMs: number, now: number): number | undefined {
    while (this.#values.length > 1 && this.#values[0]!.at < now - windowMs) this.#values.shift();
    return this.#values[0]?.value;
  }
}
