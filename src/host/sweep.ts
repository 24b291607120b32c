import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { mapBounded } from "../base/bounded.ts";
import { messageOf, systemCode } from "../base/errors.ts";
import type { FunctionId } from "../base/names.ts";
import type { ReplicaIdentity } from "../functions/backend.ts";
import { jsonAny } from "./containerd/channel.ts";
import { type Host, namesOf, netnsPrefix, snapshotPrefix } from "./context.ts";
import * as netns from "./net/netns.ts";
import { endTask } from "./remove.ts";
import { secretsRoot } from "./secrets.ts";

export interface Keep {
  replicas: readonly ReplicaIdentity[];
  functions: readonly FunctionId[];
  images: readonly { namespace: string; image: string }[];
}

/**
 * Frees what belongs to nobody: processes without a container record, snapshots, leases, half-written content, pinned
 * images, network namespaces, addresses, copies of secrets, logs; and brings copies of secrets that are kept up to
 * date. What a crash can leave, by the steps of contracts/containerd.md §5. Only while nothing is being started or
 * pulled.
 */
export async function sweepHost(host: Host, keep: Keep): Promise<void> {
  const kept = keep.replicas.map((r) => namesOf(host.settings, r));
  await mapBounded(host.namespaces(), 4, async (namespace) => {
    await endGhosts(host, namespace);
    await removeSnapshots(
      host,
      namespace,
      new Set(kept.filter((n) => n.namespace === namespace).map((n) => n.snapshot)),
    );
    await releaseImages(
      host,
      namespace,
      new Set(keep.images.filter((i) => i.namespace === namespace).map((i) => i.image)),
    );
    await host.images.sweep(namespace);
    for (const lease of await host.containerd.leases.listOurs(namespace))
      await host.containerd.leases.delete(namespace, lease);
  });
  await host.cni.sweep(new Set(kept.map((n) => n.host)));
  const netnsKept = new Set(kept.map((n) => n.netns));
  for (const name of await netns.list(netnsPrefix(host.settings))) if (!netnsKept.has(name)) await netns.remove(name);
  const secretsKept = new Set(kept.map((n) => n.host));
  await removeOthers(secretsRoot(host.settings.runDir), (name) => secretsKept.has(name));
  for (const names of kept) await host.secrets.refreshReplica(names);
  await host.logs.sweep(keep.replicas, keep.functions);
}

/** A task whose container record went first answers to nothing until it has a record again (§2.1). */
export async function endGhosts(host: Host, namespace: string): Promise<void> {
  const { tasks, containers, snapshots } = host.containerd;
  const running = await tasks.list({ namespace }); // before the records: what is made between has a record
  const recorded = await containers.ids({ namespace });
  for (const { id } of running) {
    if (recorded.has(id)) continue;
    const spec = jsonAny("types.containerd.io/opencontainers/runtime-spec/1/Spec", {});
    const runtime = { name: "io.containerd.runc.v2" };
    await containers.create(
      { id, labels: {}, image: "", runtime, spec, snapshotter: snapshots.snapshotter, snapshot_key: "" },
      { namespace },
    );
    await endTask(host, namespace, id, 0);
    await containers.delete(id, { namespace });
    host.log.warn({ task: id }, "ended a task without a container");
  }
}

/** Of replicas, not of layers. */
export async function removeSnapshots(host: Host, namespace: string, kept: ReadonlySet<string>): Promise<void> {
  for (const { name, kind } of await host.containerd.snapshots.list({ namespace })) {
    if (kind !== "COMMITTED" && name.startsWith(snapshotPrefix) && !kept.has(name))
      await host.containerd.snapshots.remove(name, { namespace });
  }
}

async function releaseImages(host: Host, namespace: string, kept: ReadonlySet<string>): Promise<void> {
  for (const pin of await host.images.pins(namespace)) if (!kept.has(pin)) await host.images.unpin(namespace, pin);
}

async function removeOthers(dir: string, isKept: (name: string) => boolean): Promise<void> {
  for (const name of await entries(dir)) if (!isKept(name)) await rm(join(dir, name), { recursive: true, force: true });
}

async function entries(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (e) {
    if (systemCode(e) === "ENOENT" || systemCode(e) === "ENOTDIR") return [];
    throw new Error(`cannot list ${dir}: ${messageOf(e)}`, { cause: e });
  }
}
