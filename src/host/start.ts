import { access } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AppError, messageOf, systemCode } from "../base/errors.ts";
import { failpoint } from "../base/failpoints.ts";
import type { Address, ReplicaSpec } from "../functions/backend.ts";
import { jsonAny } from "./containerd/channel.ts";
import { type Host, labels, type Names, namesOf } from "./context.ts";
import type { ResolvedImage } from "./image/images.ts";
import * as netns from "./net/netns.ts";
import { runtimeSpec } from "./oci/spec.ts";
import { removeReplica } from "./remove.ts";
import { injectedEnvironment, watchdogPath } from "./watchdog.ts";

/** Every function listens here: contracts/api.md §3.1. */
const functionPort = 8080;
/** Far longer than a start takes; then garbage collection may have what a dead napd left. */
const leaseMs = 10 * 60_000;

/**
 * Starts a replica, from nothing to a running process. Only what needs something waits for it, and the network comes
 * up while the task is made, which takes longest (contracts/containerd.md §2.1, §2.2 variant R):
 *
 *     network namespace ─┬─► CNI ADD ──────────────┐
 *                        └───────────┐             │
 *     image ─► files ────────────────┼─► task made ┴─► task started
 *          └─► snapshot ─► container ┘
 *
 * On failure and on abort everything is removed again, by the same steps that remove any replica.
 */
export async function startReplica(host: Host, spec: ReplicaSpec, signal?: AbortSignal): Promise<Address> {
  const names = namesOf(host.settings, spec);
  try {
    signal?.throwIfAborted();
    const namespaceMade = netns.create(names.netns, signal);
    const attached = namespaceMade.then(() => {
      failpoint("start.netns");
      return host.cni.add(names.host, names.netns, signal);
    });
    const made = makeTask(host, spec, names, namespaceMade, signal);
    const [network, task] = await Promise.allSettled([attached, made]); // both have ended before anything is undone
    if (task.status === "rejected") throw task.reason;
    if (network.status === "rejected") throw network.reason;
    failpoint("start.task");
    signal?.throwIfAborted();
    await host.containerd.tasks.start(names.container, { namespace: names.namespace, signal });
    failpoint("start.started");
    return { host: network.value.address, port: functionPort };
  } catch (e) {
    // looked at before the removal, whose own kill ends in an exit event that aborts this start too
    const aborted = signal?.aborted;
    await removeReplica(host, spec, 0).catch((left) =>
      host.log.warn(
        { replica: names.host, err: messageOf(left) },
        "a failed start could not be undone; the next reconciliation does",
      ),
    );
    if (aborted) throw signal?.reason;
    if (e instanceof AppError && e.code !== "CONTAINERD") throw e;
    if (systemCode(e) === "ENOSPC") throw new AppError("DISK_FULL", [`replica ${names.container}`], { cause: e });
    throw new AppError("START_FAILED", [names.container, messageOf(e)], { cause: e });
  }
}

/** Files, snapshot, container record and, once the network namespace is there, the task. */
async function makeTask(
  host: Host,
  spec: ReplicaSpec,
  names: Names,
  namespaceMade: Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const { containerd } = host;
  const { namespace } = names;
  const resolving = host.images.resolve(namespace, spec.image);
  resolving.catch(() => {}); // awaited below, unless there is no lease
  // keeps the snapshot until the container record does
  await using lease = await containerd.leases.open(namespace, "start", leaseMs);
  failpoint("start.lease");
  const image = await resolving;
  if (!image) throw new AppError("IMAGE_MISSING", [spec.image]);
  const injected = injectedEnvironment({ choice: spec.watchdog, env: spec.env, image: image.config });
  if (injected) await needWatchdog(host.settings.watchdogDir);
  const filesMade = Promise.all([host.logs.begin(spec), host.secrets.make(names, spec.secrets, image.identity)]);
  filesMade.catch(() => {}); // awaited below, unless the container fails first
  const options = { namespace, lease: lease.id, signal };
  const rootfs = await containerd.snapshots.prepare(names.snapshot, image.chainId, {}, options);
  failpoint("start.snapshot");
  await containerd.containers.create(
    {
      id: names.container,
      labels: {
        [labels.fn]: spec.name,
        [labels.generation]: String(spec.generation),
        [labels.number]: String(spec.number),
      },
      image: image.ref,
      runtime: { name: "io.containerd.runc.v2", ...runcOptions(host) },
      spec: jsonAny(
        "types.containerd.io/opencontainers/runtime-spec/1/Spec",
        ociSpec(host, spec, names, image, injected),
      ),
      snapshotter: containerd.snapshots.snapshotter,
      snapshot_key: names.snapshot,
    },
    options,
  );
  failpoint("start.container");
  await Promise.all([filesMade, namespaceMade]);
  failpoint("start.files");
  const logFile = host.logs.fileOf(spec);
  const request = {
    container_id: names.container,
    rootfs,
    stdout: logFile,
    stderr: otherNameOf(logFile),
    ...runcOptions(host),
  };
  signal?.throwIfAborted();
  // without the signal: a call that is cut off leaves a process in its cgroup and no task record to remove it by
  await Promise.all([lease.release(), containerd.tasks.create(request, { namespace })]);
}

function runcOptions(host: Host) {
  const { runcRoot } = host.settings;
  return runcRoot === ""
    ? {}
    : { options: host.containerd.channel.encode("RuncOptions", "containerd.runc.v1.Options", { root: runcRoot }) };
}

/** `injected`: the environment of our watchdog, when it is to be the program. */
function ociSpec(
  host: Host,
  spec: ReplicaSpec,
  names: Names,
  image: ResolvedImage,
  injected: Record<string, string> | undefined,
) {
  const { runDir, cgroupParent, pidsLimit, watchdogDir } = host.settings;
  return runtimeSpec({
    image: { ...image.config, user: image.identity },
    hostname: spec.name,
    env: { ...injected, ...spec.env },
    ...(injected && {
      args: [`${watchdogPath}/fwatchdog`],
      extraMounts: [{ source: watchdogDir, destination: watchdogPath }],
    }),
    netns: netns.path(names.netns),
    cgroupsPath: `/${cgroupParent}/${names.namespace}/${names.container}`,
    limits: {
      pids: pidsLimit,
      ...(spec.memoryBytes !== undefined && { memoryBytes: spec.memoryBytes }),
      ...(spec.cpus !== undefined && { cpus: spec.cpus }),
    },
    readOnlyRoot: spec.readOnlyRoot,
    mounts: {
      resolvConf: join(runDir, "resolv.conf"),
      hosts: join(runDir, "hosts"),
      ...(spec.secrets.length > 0 && { secretsDir: names.secretsDir }),
    },
  });
}

async function needWatchdog(dir: string): Promise<void> {
  const program = join(dir, "fwatchdog");
  await access(program).catch((cause) => {
    const remedy =
      'make it with "npm run build:watchdog", name its folder with setting paths.watchdog, or let the image answer by itself (annotation napd.watchdog: image)';
    throw new AppError("HOST_LACKS", [`the watchdog for images without one (${program})`, remedy], { cause });
  });
}

/**
 * Both streams go to one file, which must exist beforehand (contracts/containerd.md §9), so that their order is kept. Under one name (or as `file://`, which means one name) the
 * shim writes both through one descriptor and closes it when the first stream ends: the last words of a program that
 * crashes are lost, more often than not those on standard error. Under two names it opens the file twice.
 */
function otherNameOf(file: string): string {
  return `${dirname(file)}/./${basename(file)}`;
}
