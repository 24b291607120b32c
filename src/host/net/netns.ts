import { access, readdir, statfs } from "node:fs/promises";
import { AppError, systemCode } from "../../base/errors.ts";
import { run } from "../exec.ts";

/**
 * Named network namespaces, as `ip netns` keeps them: a bind mount of the namespace on a file in /run/netns, which
 * keeps it alive without a process. A replica's namespace is made before its task and outlives it, so a crashed
 * task restarts with its address and CNI DEL always has something to work on (contracts/containerd.md §6).
 *
 * Must run in the host's mount namespace: in a private one the file that others see is empty.
 */
const directory = "/run/netns";

/** Type that statfs reports for a namespace file: NSFS_MAGIC of linux/magic.h. */
const nsfsMagic = 0x6e736673;

/** The path that the runtime spec and CNI take for the namespace `name`. */
export function path(name: string): string {
  return `${directory}/${name}`;
}

/**
 * Makes the namespace `name`. An empty file of that name, left by a reboot that kept /run or by a private mount
 * namespace, is replaced; a live namespace is an error (HOST_COMMAND).
 * Its `lo` is still down: that costs another program start, and `Cni.add` does it while the CNI plugin runs.
 */
export async function create(name: string, signal?: AbortSignal): Promise<void> {
  check(name);
  try {
    await run("ip", ["netns", "add", name], { signal });
  } catch (e) {
    if (signal?.aborted || !(await exists(name)) || (await isLive(path(name)))) throw e;
    await run("ip", ["netns", "del", name], { signal });
    await run("ip", ["netns", "add", name], { signal });
  }
}

/** Brings the loopback interface of the namespace up: programs that talk to themselves on 127.0.0.1 need it. */
export async function loopbackUp(name: string, signal?: AbortSignal): Promise<void> {
  await run("ip", ["-n", name, "link", "set", "lo", "up"], { signal });
}

/** Removes the namespace and, with it, the interfaces inside. Removing what is not there is no error. */
export async function remove(name: string, signal?: AbortSignal): Promise<void> {
  check(name);
  if (!(await exists(name))) return;
  try {
    await run("ip", ["netns", "del", name], { signal });
  } catch (e) {
    if (await exists(name)) throw e; // else somebody else was faster
  }
}

/** Names of the namespaces that begin with `prefix`, dead files included. */
export async function list(prefix: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => name.startsWith(prefix));
  } catch (e) {
    if (systemCode(e) === "ENOENT") return []; // nobody has made a namespace since the machine started
    throw e;
  }
}

/** Whether there is a real namespace at `path`; an empty leftover file is none. */
export async function isLive(path: string): Promise<boolean> {
  try {
    return (await statfs(path)).type === nsfsMagic;
  } catch (e) {
    if (systemCode(e) === "ENOENT" || systemCode(e) === "ENOTDIR") return false;
    throw e;
  }
}

async function exists(name: string): Promise<boolean> {
  return access(path(name)).then(
    () => true,
    () => false,
  );
}

/** `ip netns` takes anything, also `../x`: names come from our own identifiers, so anything else is our bug. */
function check(name: string): void {
  if (!/^[A-Za-z0-9][-_.A-Za-z0-9]{0,199}$/.test(name))
    throw new AppError("INTERNAL", [`"${name}" is no name for a network namespace`]);
}
