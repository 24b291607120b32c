import { setImmediate as turn } from "node:timers/promises";
import type { ReplicaIdentity, ReplicaStats } from "../functions/backend.ts";
import { groupUsage, listGroups } from "./cgroup.ts";
import { type Host, labels } from "./context.ts";
import { identityOf } from "./observe.ts";

/** Groups that are read before others get their turn: about half a millisecond. */
const readAtOnce = 20;

/**
 * See Backend.stats. Read from the control groups themselves: containerd's Metrics would ask every shim, which takes
 * milliseconds each, and their files answer for a frozen process as well. containerd is only asked which replica an
 * unknown group belongs to.
 */
export function openStats(host: Host): () => Promise<ReplicaStats[]> {
  /** By namespace and container; a container's labels never change. */
  const known = new Map<string, Map<string, ReplicaIdentity>>();

  async function identities(namespace: string, groups: readonly string[]): Promise<Map<string, ReplicaIdentity>> {
    const before = known.get(namespace);
    if (before && groups.every((group) => before.has(group))) return before;
    const found = new Map<string, ReplicaIdentity>();
    for (const container of await host.containerd.containers.listLabelled(labels.fn, { namespace })) {
      const identity = identityOf(namespace, container);
      if (identity) found.set(container.id, identity);
    }
    known.set(namespace, found);
    return found;
  }

  return async () => {
    const all: ReplicaStats[] = [];
    for (const namespace of host.namespaces()) {
      const parent = `${host.settings.cgroupParent}/${namespace}`;
      const groups = listGroups(parent);
      if (groups.length === 0) continue;
      const byContainer = await identities(namespace, groups);
      for (const [i, group] of groups.entries()) {
        if (i % readAtOnce === readAtOnce - 1) await turn();
        const identity = byContainer.get(group);
        const usage = identity && groupUsage(`${parent}/${group}`);
        if (usage) all.push({ ...identity, ...usage });
      }
    }
    return all;
  };
}
