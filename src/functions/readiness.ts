import type { Clock } from "../base/clock.ts";
import { AppError } from "../base/errors.ts";
import { ask } from "./ask.ts";
import { type Address, type Backend, type ReplicaExit, replicaId } from "./backend.ts";
import type { Probes } from "./probes.ts";
import type { Replica } from "./replica.ts";

/** Bytes of a replica's last output that go into an error. */
const tailBytes = 500;

/** Waits until a started replica is ready. Fails with REPLICA_NOT_READY, or with the reason of its own abort signal. */
export async function becomeReady(
  replica: Replica,
  address: Address,
  probes: Probes,
  timeoutMs: number,
  backend: Backend,
  clock: Clock,
): Promise<void> {
  const wrong = await waitReady(address, probes, timeoutMs, clock, replica.abort.signal);
  if (wrong === null) return;
  const tail = await backend.tail(replica.identity, tailBytes).catch(() => "");
  throw new AppError("REPLICA_NOT_READY", [
    replica.id,
    timeoutMs,
    tail === "" ? wrong : `${wrong}; its last output: ${tail}`,
  ]);
}

/**
 * Why a replica ended: out of memory (`memory` is its limit as asked for), its exit code and last output, or, for an
 * exit that nobody saw, just that. `served` says whether it had been ready.
 */
export async function exitReason(
  exit: ReplicaExit,
  memory: string | undefined,
  served: boolean,
  backend: Backend,
): Promise<AppError> {
  const id = replicaId(exit);
  if (exit.outOfMemory) return new AppError("REPLICA_OOM", [id, memory ?? "no limit"]);
  if (exit.exitCode === null) return new AppError("REPLICA_LOST", [id]);
  const tail = await backend.tail(exit, tailBytes).catch(() => "");
  const when = served ? "while it served" : "before it was ready";
  return new AppError("REPLICA_EXITED", [id, exit.exitCode, when, tail]);
}

/**
 * Waits until the readiness probe has succeeded as often in a row as it must: null then, or after `timeoutMs` (beside
 * the initial delay) what was wrong last. Probes at once, then after 1 ms, growing by half up to the probe's own pause,
 * because a program that starts fast should not wait for our clock. Rejects with the signal's reason when it aborts.
 */
export async function waitReady(
  address: Address,
  { ready, readyPauseMs }: Probes,
  timeoutMs: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<string | null> {
  if (ready.initialDelayMs > 0) await clock.sleep(ready.initialDelayMs, signal);
  const end = clock.monotonic() + timeoutMs;
  let successes = 0;
  for (let pauseMs = 1; ; pauseMs = Math.min(readyPauseMs, pauseMs * 1.5)) {
    signal.throwIfAborted();
    const wrong = await ask(address, ready, signal);
    signal.throwIfAborted();
    successes = wrong === null ? successes + 1 : 0;
    if (successes === ready.successThreshold) return null;
    if (clock.monotonic() + pauseMs > end) return wrong ?? `it was ready ${successes} times in a row, no more`;
    await clock.sleep(pauseMs, signal);
  }
}
