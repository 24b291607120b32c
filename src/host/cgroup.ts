import { existsSync, readdirSync, readFileSync } from "node:fs";
import { readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { AppError, systemCode } from "../base/errors.ts";

/** Where control groups are: one tree (v2), or a tree per controller (v1). This file is the only one that knows. */
const root = "/sys/fs/cgroup";

/**
 * The only place that freezes and thaws: direct writes to the container's cgroup, because that takes 0.2 ms where
 * containerd's Pause and Resume take 8. The two are never mixed on one container, so nobody else may call those
 * (contracts/containerd.md §2.3). The truth is read from the kernel: containerd goes on saying RUNNING.
 */
export interface Freezer {
  /** Resolves when every process of the container stands still. Undoes a freeze that does not complete. */
  freeze(pid: number): Promise<void>;
  thaw(pid: number): Promise<void>;
  isFrozen(pid: number): Promise<boolean>;
}

/** How long a freeze may take, in ms; a process in an uninterruptible call can hold it up. */
const freezeTimeoutMs = 2000;

export function openFreezer(clock: Clock): Freezer {
  const freeze = async (pid: number) => {
    const group = await freezerOf(pid);
    await writeFile(group.file, group.frozen);
    const end = clock.monotonic() + freezeTimeoutMs;
    while (!(await group.isFrozen())) {
      if (clock.monotonic() > end) {
        await writeFile(group.file, group.thawed); // a freeze that stays pending would strike later, out of nowhere
        throw new AppError("HOST_COMMAND", [
          "freezing a container",
          `not every process stood still within ${freezeTimeoutMs} ms`,
        ]);
      }
      await clock.sleep(1);
    }
  };
  const thaw = async (pid: number) => {
    const group = await freezerOf(pid);
    await writeFile(group.file, group.thawed);
  };
  return { freeze, thaw, isFrozen: async (pid) => (await freezerOf(pid)).isFrozen() };
}

interface FreezerGroup {
  file: string;
  frozen: string;
  thawed: string;
  isFrozen(): Promise<boolean>;
}

/** Asks the kernel where the process is instead of assuming: with the systemd driver it is a scope. */
async function freezerOf(pid: number): Promise<FreezerGroup> {
  const lines = (await readFile(`/proc/${pid}/cgroup`, "utf8")).split("\n");
  const v1 = lines.find((l) => /^\d+:([^:]*,)?freezer(,[^:]*)?:/.test(l));
  if (v1) {
    const file = `${root}/freezer${v1.slice(v1.indexOf(":/") + 1)}/freezer.state`;
    return { file, frozen: "FROZEN", thawed: "THAWED", isFrozen: async () => (await read(file)).trim() === "FROZEN" };
  }
  const dir = `${root}${lines.find((l) => l.startsWith("0::"))?.slice(3) ?? ""}`;
  const isFrozen = async () => /^frozen 1$/m.test(await read(`${dir}/cgroup.events`));
  return { file: `${dir}/cgroup.freeze`, frozen: "1", thawed: "0", isFrozen };
}

/** What a control group has used. */
export interface GroupUsage {
  /** Since the group was made. */
  cpuNanoseconds: number;
  /** Working set: memory in use without file pages that nobody touched lately. 0 where memory is not accounted. */
  memoryBytes: number;
}

/** Text of a file of a group, undefined when it is not there. */
export type ReadGroupFile = (controller: string, file: string) => string | undefined;

/**
 * What a group has used, from the kernel's files (cgroup-v1/cpuacct and memory, cgroup-v2); undefined when the group is
 * gone. The working set is the one of Kubernetes: usage less inactive file pages.
 */
export function parseUsage(version: 1 | 2, read: ReadGroupFile): GroupUsage | undefined {
  const [cpu, used, stat, inactive] =
    version === 1
      ? [
          read("cpuacct", "cpuacct.usage"),
          read("memory", "memory.usage_in_bytes"),
          "memory.stat",
          "total_inactive_file",
        ]
      : [read("cpu", "cpu.stat"), read("memory", "memory.current"), "memory.stat", "inactive_file"];
  if (cpu === undefined && used === undefined) return undefined;
  const cpuNanoseconds = version === 1 ? Number(cpu ?? 0) : field(cpu ?? "", "usage_usec") * 1000;
  const idle = used === undefined ? 0 : field(read("memory", stat) ?? "", inactive);
  return { cpuNanoseconds, memoryBytes: Math.max(0, Number(used ?? 0) - idle) };
}

/** A line `NAME VALUE`. */
function field(text: string, name: string): number {
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
}

/**
 * Names of the groups below `path` (such as `napd/openfaas-fn`). Synchronous, as is `groupUsage`: the kernel answers
 * these files from memory, and for hundreds of groups the thread pool would cost ten times what the answers do.
 */
export function listGroups(path: string): string[] {
  try {
    const entries = readdirSync(join(root, version() === 1 ? "cpuacct" : "", path), { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (e) {
    if (systemCode(e) === "ENOENT") return [];
    throw e;
  }
}

/** Undefined when the group is gone. */
export function groupUsage(path: string): GroupUsage | undefined {
  const tree = version();
  return parseUsage(tree, (controller, file) => {
    try {
      return readFileSync(join(root, tree === 1 ? controller : "", path, file), "utf8");
    } catch (e) {
      if (["ENOENT", "ENODEV", "EOPNOTSUPP"].includes(systemCode(e) ?? "")) return undefined;
      throw e;
    }
  });
}

let known: 1 | 2 | undefined;

/** Of the tree that the controllers are in; with a hybrid layout they are v1's. */
function version(): 1 | 2 {
  known ??= existsSync(join(root, "cgroup.controllers")) ? 2 : 1;
  return known;
}

/**
 * Removes the groups that runc made above those of our containers and leaves behind: `parent` and what is below it,
 * in every tree. A group that still has a process stays.
 */
export async function removeParentGroups(parent: string): Promise<void> {
  for (const tree of [root, ...(await directories(root)).map((name) => join(root, name))])
    await removeGroup(join(tree, parent));
}

async function removeGroup(dir: string): Promise<void> {
  for (const name of await directories(dir)) await removeGroup(join(dir, name));
  await rmdir(dir).catch(() => {}); // not there, or in use: neither is for us to change
}

async function directories(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

/** Empty when the container is gone. */
async function read(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (e) {
    if (systemCode(e) === "ENOENT" || systemCode(e) === "ENODEV") return "";
    throw e;
  }
}
