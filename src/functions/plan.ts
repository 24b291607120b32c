import { type ReplicaState, servingStates } from "./replica.ts";

/** A replica as the plan sees it. */
export interface PlannedReplica {
  readonly id: string;
  readonly generation: number;
  readonly number: number;
  readonly state: ReplicaState;
  /** It ran before napd did: while it is `starting` it is only looked at, and it may be who serves. */
  readonly adopted: boolean;
}

export interface Plan<R> {
  /** Numbers of replicas of the wanted generation to start now. */
  readonly start: readonly number[];
  /** Who is sent requests. */
  readonly route: readonly R[];
  /** Who is to be stopped: drained first if it serves. */
  readonly retire: readonly R[];
}

/**
 * What to do so that `count` replicas of `generation` serve and nothing else remains. Pure. The old generation goes
 * on serving until the new one is complete; then the route changes in one step and the old one is retired.
 * A failed replica is retired first and started anew once it is gone, since both have the same id.
 */
export function plan<R extends PlannedReplica>(generation: number, count: number, replicas: readonly R[]): Plan<R> {
  const serving = (r: R) => (servingStates as readonly ReplicaState[]).includes(r.state);
  const wanted = replicas.filter((r) => r.generation === generation && r.number < count);
  const others = replicas.filter((r) => r.generation !== generation || r.number >= count);
  const fresh = wanted.filter(serving);
  const complete = fresh.length === count;
  const start: number[] = [];
  for (let number = 0; number < count; number++)
    if (!replicas.some((r) => r.generation === generation && r.number === number)) start.push(number);
  const stale = others.filter((r) => serving(r) && r.generation !== generation);
  const surplus = others.filter((r) => serving(r) && r.generation === generation);
  const gone = replicas.filter((r) => r.state === "failed");
  const pointless = others.filter(
    (r) => r.state === "starting" && (complete || !r.adopted || r.generation === generation),
  );
  if (complete) return { start, route: fresh, retire: [...stale, ...surplus, ...pointless, ...gone] };
  return {
    start,
    route: stale.length > 0 ? stale : [...fresh, ...surplus],
    retire: [...pointless, ...gone, ...(stale.length > 0 ? surplus : [])],
  };
}
