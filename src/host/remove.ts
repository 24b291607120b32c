import { rm } from "node:fs/promises";
import { within } from "../base/clock.ts";
import { AppError } from "../base/errors.ts";
import { failpoint } from "../base/failpoints.ts";
import type { ReplicaIdentity } from "../functions/backend.ts";
import { type Host, type Names, namesOf } from "./context.ts";
import * as netns from "./net/netns.ts";

/** How long a killed process may take to be gone, ms. */
const killedMs = 10_000;

/**
 * Ends a replica and frees all that it holds, in the reverse order of its start: task, network, container, snapshot.
 * The container record goes after the task without exception: the other way round leaves a process that containerd
 * denies (contracts/containerd.md §2.1). Every step is idempotent, so this also clears what was half made.
 */
export async function removeReplica(
  host: Host,
  replica: ReplicaIdentity,
  graceMs: number,
  hurry?: AbortSignal,
): Promise<void> {
  const names = namesOf(host.settings, replica);
  await endTask(host, names.namespace, names.container, graceMs, hurry);
  host.freezer.forget(names);
  failpoint("remove.task");
  const ends = await Promise.allSettled([
    host.logs.end(replica),
    removeNetwork(host, names),
    removeContainer(host, names),
    rm(names.secretsDir, { recursive: true, force: true }),
  ]);
  // only when all have ended: the next attempt, or a start under the same name, must not meet one of them
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}

async function removeNetwork({ cni }: Host, names: Names): Promise<void> {
  // with its namespace gone the interface is gone, and DEL has little to do: 12 ms instead of 39
  await netns.remove(names.netns);
  failpoint("remove.netns");
  await cni.del(names.host, names.netns);
  failpoint("remove.network");
}

async function removeContainer({ containerd }: Host, names: Names): Promise<void> {
  const options = { namespace: names.namespace };
  await containerd.containers.delete(names.container, options);
  failpoint("remove.container");
  await containerd.snapshots.remove(names.snapshot, options);
  failpoint("remove.snapshot");
}

/** TERM, after `graceMs` or when `hurry` aborts KILL, then the task record. 0 kills at once. Nothing to end is fine. */
export async function endTask(
  host: Host,
  namespace: string,
  container: string,
  graceMs: number,
  hurry?: AbortSignal,
): Promise<void> {
  const { tasks } = host.containerd;
  const task = await tasks.get(container, { namespace });
  if (!task) return;
  if (task.status !== "STOPPED") {
    // one that was never started is killed too: containerd's own way to delete it takes two seconds
    const patienceMs = task.status === "CREATED" ? 0 : graceMs;
    const stop = new AbortController();
    const ended = tasks.wait(container, { namespace, signal: stop.signal }).then(
      () => true,
      () => false, // the connection broke: what follows finds out
    );
    try {
      await terminate(host, namespace, container, task.pid, patienceMs, ended, hurry);
    } finally {
      stop.abort(new Error("no longer waiting for the exit"));
    }
  }
  await tasks.delete(container, { namespace });
}

async function terminate(
  host: Host,
  namespace: string,
  container: string,
  pid: number,
  graceMs: number,
  ended: Promise<boolean>,
  hurry: AbortSignal | undefined,
): Promise<void> {
  const { tasks } = host.containerd;
  if (graceMs > 0) {
    await host.freezer.thaw({ namespace, container }).catch(() => {}); // a frozen process gets no TERM; one that is gone needs none
    await tasks.kill(container, 15, false, { namespace });
    if (await within(hurry ? Promise.race([ended, aborted(hurry)]) : ended, graceMs, host.clock)) return;
  }
  await tasks.kill(container, 9, true, { namespace });
  if (await within(ended, killedMs, host.clock)) return;
  const task = await tasks.get(container, { namespace });
  if (task && task.status !== "STOPPED")
    throw new AppError("STOP_FAILED", [container, `its process ${pid} survived KILL for ${killedMs / 1000} s`]);
}

/** False, when the signal aborts. */
function aborted(signal: AbortSignal): Promise<false> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(false);
    else signal.addEventListener("abort", () => resolve(false), { once: true });
  });
}
