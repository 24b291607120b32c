import { KeyedQueue } from "../base/keyed-queue.ts";
import type { Backend } from "../functions/backend.ts";
import { type Host, namesOf } from "./context.ts";
import { hostImages } from "./images.ts";
import { addNamespace, removeNamespace, sweepNamespaces } from "./namespaces.ts";
import { listReplicas, tailOf, watchReplicas } from "./observe.ts";
import { removeReplica } from "./remove.ts";
import { startReplica } from "./start.ts";
import { openStats } from "./stats.ts";
import { sweepHost } from "./sweep.ts";

/** The backend for this machine. Each operation is a file of its own; this is their list. */
export function hostBackend(host: Host): Backend {
  /** Of one replica, one after the other: containerd fails the second of two deletions of a task. */
  const stops = new KeyedQueue<string>();
  return {
    can: { freeze: true },
    prepare: async (namespace, image, policy, signal) =>
      (await host.images.ensure(namespace, image, policy, signal)).pin,
    images: hostImages(host),
    release: (namespace, image) => host.images.unpin(namespace, image),
    start: (spec, signal) => startReplica(host, spec, signal),
    stop: (replica, graceMs, hurry) =>
      stops.run(namesOf(host.settings, replica).host, () => removeReplica(host, replica, graceMs, hurry)),
    freeze: (replica) => host.freezer.freeze(namesOf(host.settings, replica)),
    thaw: (replica) => host.freezer.thaw(namesOf(host.settings, replica)),
    list: () => listReplicas(host),
    watch: (onExit, onGap) => watchReplicas(host, onExit, onGap),
    stats: openStats(host),
    tail: (replica, bytes) => tailOf(host, replica, bytes),
    sweep: async (keep) => {
      await sweepHost(host, keep);
      await sweepNamespaces(host);
    },
    logs: (query, signal) => host.logs.lines(query, signal),
    remembers: async (fn) => host.logs.remembers(fn),
    forget: (fn) => host.logs.forget(fn),
    addNamespace: (namespace) => addNamespace(host, namespace),
    removeNamespace: (namespace) => removeNamespace(host, namespace),
    refreshSecret: (namespace, name) => host.secrets.refresh(namespace, name),
  };
}
