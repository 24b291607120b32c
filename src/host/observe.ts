import { type FileHandle, open } from "node:fs/promises";
import { mapBounded } from "../base/bounded.ts";
import { messageOf, systemCode } from "../base/errors.ts";
import type { ObservedReplica, ReplicaExit, ReplicaIdentity } from "../functions/backend.ts";
import type { ContainerRecord } from "./containerd/containers.ts";
import type { TaskEvent } from "./containerd/events.ts";
import type { TaskProcess } from "./containerd/tasks.ts";
import type { Timestamp } from "./containerd/types.ts";
import { type Host, labels, namesOf } from "./context.ts";
import type { Attachment } from "./net/cni.ts";
import * as netns from "./net/netns.ts";

/** Replicas looked at at once: each look is a few small reads. */
const looks = 32;

/** Every container of ours with what has become of it. */
export async function listReplicas(host: Host): Promise<ObservedReplica[]> {
  const stored = host.cni.stored();
  const found = await mapBounded(host.namespaces(), 4, async (namespace) => {
    const [containers, tasks] = await Promise.all([
      host.containerd.containers.listLabelled(labels.fn, { namespace }),
      host.containerd.tasks.list({ namespace }),
    ]);
    const byId = new Map(tasks.map((t) => [t.id, t]));
    return mapBounded(containers, looks, async (container) => {
      const identity = identityOf(namespace, container);
      return identity && observe(host, identity, byId.get(container.id), stored);
    });
  });
  return found.flat().filter((replica) => replica !== undefined);
}

/** Which replica a container is; undefined when it is none of ours. */
export function identityOf(namespace: string, container: Pick<ContainerRecord, "labels">): ReplicaIdentity | undefined {
  const { [labels.fn]: name, [labels.generation]: generation, [labels.number]: number } = container.labels;
  if (!name || !/^\d+$/.test(generation ?? "") || !/^\d+$/.test(number ?? "")) return undefined;
  return { name, namespace, generation: Number(generation), number: Number(number) };
}

/** A replica without its process, its address or its network namespace cannot be used any more (§5 step 3). */
async function observe(
  host: Host,
  identity: ReplicaIdentity,
  task: TaskProcess | undefined,
  stored: ReadonlyMap<string, Attachment>,
): Promise<ObservedReplica> {
  const names = namesOf(host.settings, identity);
  const attachment = stored.get(names.host);
  const dead = { ...identity, condition: "dead", address: null } as const;
  const lives = task?.status === "RUNNING" || task?.status === "PAUSED" || task?.status === "PAUSING";
  if (!lives || !attachment) return dead;
  if (!(await netns.isLive(netns.path(names.netns))) || !(await host.cni.isPlugged(names.host))) return dead;
  const frozen = await host.freezer.isFrozen(names, task).catch(() => undefined);
  if (frozen === undefined) return dead; // ended since the list was made
  return { ...identity, condition: frozen ? "frozen" : "running", address: { host: attachment.address, port: 8080 } };
}

/** Follows exits until disposed; see Backend.watch. */
export function watchReplicas(host: Host, onExit: (exit: ReplicaExit) => void, onGap: () => void): Disposable {
  const stop = new AbortController();
  const outOfMemory = new Set<string>();
  const deliver = async (exit: TaskExited) => {
    const { namespace, containerId, exitCode } = exit;
    const hit = outOfMemory.delete(`${namespace}/${containerId}`);
    const [container, task] = await Promise.all([
      host.containerd.containers.get(containerId, { namespace }),
      host.containerd.tasks.get(containerId, { namespace }),
    ]);
    const identity = container && identityOf(namespace, container);
    if (identity && isOf(exit, container, task)) onExit({ ...identity, exitCode, outOfMemory: hit && exitCode !== 0 });
  };
  void host.containerd.events.follow(
    onGap,
    (cause) => host.log.warn({ err: messageOf(cause) }, "connection to containerd lost"),
    (event) => {
      if (!host.namespaces().includes(event.namespace)) return;
      if (event.kind === "oom") outOfMemory.add(`${event.namespace}/${event.containerId}`);
      else deliver(event).catch(onGap);
    },
    stop.signal,
  );
  return { [Symbol.dispose]: () => stop.abort(new Error("no longer watching")) };
}

type TaskExited = Extract<TaskEvent, { kind: "exit" }>;

/**
 * Whether it is the exit of what now has that id. A replica that is started again takes the id of the one before it,
 * whose exit may be told late: that one had another process, and ended before this one's container was made.
 */
export function isOf(
  exit: Pick<TaskExited, "pid" | "exitedAt">,
  container: Pick<ContainerRecord, "created_at">,
  task: Pick<TaskProcess, "pid"> | undefined,
): boolean {
  if (task) return task.pid === exit.pid;
  const [ended, made] = [nanoseconds(exit.exitedAt), nanoseconds(container.created_at)];
  return ended === undefined || made === undefined || ended >= made;
}

function nanoseconds(time: Timestamp | null | undefined): bigint | undefined {
  return time ? BigInt(time.seconds) * 1_000_000_000n + BigInt(time.nanos) : undefined;
}

/**
 * The end of a replica's log, from the first whole line in it. Empty when there is none. The log of a process that has
 * ended is complete only once its task is deleted, so that is done first (contracts/containerd.md §9).
 */
export async function tailOf(host: Host, replica: ReplicaIdentity, bytes: number): Promise<string> {
  const { namespace, container } = namesOf(host.settings, replica);
  const task = await host.containerd.tasks.get(container, { namespace });
  if (task?.status === "STOPPED") await host.containerd.tasks.delete(container, { namespace });
  const file = await open(host.logs.fileOf(replica)).catch((e) => {
    if (systemCode(e) === "ENOENT") return undefined;
    throw e;
  });
  if (!file) return "";
  try {
    return await readTail(file, bytes);
  } finally {
    await file.close();
  }
}

async function readTail(file: FileHandle, bytes: number): Promise<string> {
  const { size } = await file.stat();
  const from = Math.max(0, size - bytes);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, from);
  const text = buffer.subarray(0, bytesRead).toString("utf8");
  return (from === 0 ? text : text.slice(text.indexOf("\n") + 1)).trim();
}
