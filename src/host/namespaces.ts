import { join } from "node:path";
import { AppError, messageOf } from "../base/errors.ts";
import { removeParentGroups } from "./cgroup.ts";
import type { Containerd } from "./containerd/client.ts";
import { type Host, labels } from "./context.ts";
import { identityOf } from "./observe.ts";
import { removeReplica } from "./remove.ts";
import { endGhosts, removeSnapshots } from "./sweep.ts";

/**
 * Labels of containerd's namespaces for functions: faasd's, which other tools look for, and ours, which says by the
 * bridge's name which napd may take it away again.
 */
function namespaceLabels(bridge: string): Record<string, string> {
  return { openfaas: "true", [labels.owner]: bridge };
}

/** Makes those that are not there, and marks all as ours: they are the namespaces of our state. */
export async function ensureNamespaces(
  containerd: Containerd,
  bridge: string,
  names: readonly string[],
): Promise<void> {
  const marked = (await containerd.namespaces.list()).filter((n) => n.labels[labels.owner] === bridge);
  const known = new Set(marked.map((n) => n.name));
  for (const name of names) if (!known.has(name)) await containerd.namespaces.ensure(name, namespaceLabels(bridge));
}

/** Idempotent. Fails with NAMESPACE_TAKEN when somebody else made it: deleting it later would delete what is theirs. */
export async function addNamespace(host: Host, name: string): Promise<void> {
  const { namespaces } = host.containerd;
  if (await namespaces.create(name, namespaceLabels(host.settings.bridge))) return;
  const owner = (await namespaces.get(name))?.labels[labels.owner];
  if (owner !== host.settings.bridge) throw new AppError("NAMESPACE_TAKEN", [name]);
}

/** With images, leftovers, logs and control groups. Idempotent. Fails with NAMESPACE_IN_USE, by what is not ours. */
export async function removeNamespace(host: Host, name: string): Promise<void> {
  // whoever asks knows it to be ours, also when a containerd that lost its disk made it again without our label
  if (await host.containerd.namespaces.get(name)) {
    await empty(host, name);
    if (!(await host.containerd.namespaces.delete(name)))
      throw new AppError("NAMESPACE_IN_USE", [name, "things in containerd that napd has not put there"]);
  }
  await removeParentGroups(join(host.settings.cgroupParent, name));
  await host.logs.forgetNamespace(name);
}

/** containerd deletes only namespaces without containers, images, content and snapshots. */
async function empty(host: Host, namespace: string): Promise<void> {
  const { containers, images, leases } = host.containerd;
  for (const container of await containers.listLabelled(labels.fn, { namespace })) {
    const identity = identityOf(namespace, container);
    if (identity) await removeReplica(host, identity, 0);
  }
  await endGhosts(host, namespace);
  await removeSnapshots(host, namespace, new Set());
  for (const { name } of await images.list({ namespace })) await images.delete(name, { namespace });
  await host.images.sweep(namespace);
  for (const lease of await leases.listOurs(namespace)) await leases.delete(namespace, lease);
  // layers and content go by garbage collection, which runs to its end when something is deleted so
  const { id } = await leases.open(namespace, "empty", 60_000);
  await leases.delete(namespace, id, true);
}

/** Removes namespaces of ours that nobody knows: a crash or an older state left them. */
export async function sweepNamespaces(host: Host): Promise<void> {
  const known = host.namespaces();
  for (const { name, labels: found } of await host.containerd.namespaces.list()) {
    if (found[labels.owner] !== host.settings.bridge || known.includes(name)) continue;
    await removeNamespace(host, name).then(
      () => host.log.warn({ namespace: name }, "removed a namespace that nobody knows"),
      (e) => host.log.warn({ namespace: name, err: messageOf(e) }, "a namespace that nobody knows stays"),
    );
  }
}
