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
