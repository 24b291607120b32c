import type { Clock } from "../base/clock.ts";
import { AppError } from "../base/errors.ts";
import { ask } from "./ask.ts";
import type { Address } from "./backend.ts";
import type { Probe, Probes } from "./probes.ts";
import type { Replica } from "./replica.ts";

export interface Verdicts {
  /** It failed its health check as often in a row as it may: it is to be replaced. */
  unhealthy: (error: AppError) => void;
  /** `replica.refusal` has come or gone. */
  refusal: () => void;
}

/**
 * Looks after a replica that has got ready, until `replica.down` aborts. Only while it is awake: a probe never wakes
 * one that sleeps, and what one says (or does not) while it falls asleep or wakes up counts for nothing. Probes are no
 * calls: they count neither as requests in flight nor against the idle time.
 */
export function monitor(replica: Replica, address: Address, probes: Probes, clock: Clock, verdicts: Verdicts): void {
  const { health, ready, watchReady } = probes;
  if (health)
    void watch(replica, address, health, clock, (wrong) => {
      if (wrong === null) return;
      verdicts.unhealthy(new AppError("REPLICA_UNHEALTHY", [replica.id, health.failureThreshold, wrong]));
    });
  if (watchReady)
    void watch(replica, address, ready, clock, (wrong) => {
      const changes = (replica.refusal === null) !== (wrong === null);
      replica.refusal = wrong;
      if (changes) verdicts.refusal();
    });
}

/** Probes on and on; `verdict` is told each time that a row of equal outcomes has become as long as it must be. */
async function watch(
  replica: Replica,
  address: Address,
  probe: Probe,
  clock: Clock,
  verdict: (wrong: string | null) => void,
): Promise<void> {
  const { signal } = replica.down;
  let row = 0;
  let lastWell = true;
  try {
    await clock.sleep(probe.initialDelayMs, signal);
    for (;;) {
      await clock.sleep(probe.periodMs, signal);
      const { moves } = replica;
      const wrong = replica.state === "ready" ? await ask(address, probe, signal) : null;
      if (signal.aborted) return;
      if (replica.state !== "ready" || replica.moves !== moves) {
        row = 0;
        continue;
      }
      const well = wrong === null;
      row = well === lastWell ? row + 1 : 1;
      lastWell = well;
      if (row === (well ? probe.successThreshold : probe.failureThreshold)) verdict(wrong);
    }
  } catch (e) {
    if (!signal.aborted) throw e;
  }
}
