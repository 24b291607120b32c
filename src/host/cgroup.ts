import { constants, existsSync, readdirSync, readFileSync } from "node:fs";
import { access, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { AppError, systemCode } from "../base/errors.ts";

/** Where control groups are: one tree (v2), or a tree per controller (v1). This file is the only one that knows. */
const root = "/sys/fs/cgroup";

/** The control group of one container, as far as freezing goes; found once, so that a thaw is one write. */
export interface FreezerGroup {
  /** Resolves when every process stands still. A freeze that does not complete is undone, and fails. */
  freeze(): Promise<void>;
  /** Fine when it is not frozen. */
  thaw(): Promise<void>;
  /** Whether it stands still, or was told to. */
  isFrozen(): Promise<boolean>;
  /** Moves the memory of a frozen container to swap, as much as goes, until it is thawed. Only v2 can; false when not. */
  pageOut(): Promise<boolean>;
}

/** How long a freeze may take, in ms; a process in an uninterruptible call can hold it up. */
const freezeTimeoutMs = 2000;
/** Memory asked back at once: small, so that a thaw in between is noticed. */
const reclaimBytes = 32 * 1024 * 1024;

/** What v1 and v2 write and read. */
interface Form {
  readonly file: string;
  readonly frozen: string;
  readonly thawed: string;
  /** Every process stands still. */
  isComplete(): Promise<boolean>;
  /** The wish, which may not have come true yet. */
  isAsked(): Promise<boolean>;
  /** Directory with the memory files of v2. */
  readonly memory?: string;
}

/**
 * The freezer of the group that a process is in; null when nobody may write there. The kernel is asked instead of
 * assuming: with the systemd driver the group is a scope. Fails when the process is gone. `places` is for tests.
 */
export async function freezerOf(
  pid: number,
  clock: Clock,
  places = { cgroup: root, proc: "/proc" },
): Promise<FreezerGroup | null> {
  const form = formOf((await readFile(`${places.proc}/${pid}/cgroup`, "utf8")).split("\n"), places.cgroup);
  const isWritable = await access(form.file, constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!isWritable) return null;
  return {
    freeze: () => freeze(form, clock),
    thaw: () => writeFile(form.file, form.thawed),
    isFrozen: form.isAsked,
    pageOut: () => pageOut(form),
  };
}

/** `lines` of /proc/PID/cgroup. A freezer among the v1 trees is the one in use, also beside a v2 tree. */
function formOf(lines: string[], cgroups: string): Form {
  const v1 = lines.find((l) => /^\d+:([^:]*,)?freezer(,[^:]*)?:/.test(l));
  if (v1) {
    const file = `${cgroups}/freezer${v1.slice(v1.indexOf(":/") + 1)}/freezer.state`;
    const state = async () => (await read(file)).trim(); // THAWED, FREEZING (asked, not complete), FROZEN
    return {
      ...{ file, frozen: "FROZEN", thawed: "THAWED" },
      isComplete: async () => (await state()) === "FROZEN",
      isAsked: async () => /^FR/.test(await state()),
    };
  }
  const dir = `${cgroups}${lines.find((l) => l.startsWith("0::"))?.slice(3) ?? ""}`;
  const file = `${dir}/cgroup.freeze`;
  return {
    ...{ file, frozen: "1", thawed: "0", memory: dir },
    isComplete: async () => /^frozen 1$/m.test(await read(`${dir}/cgroup.events`)),
    isAsked: async () => (await read(file)).trim() === "1",
  };
}

async function freeze(form: Form, clock: Clock): Promise<void> {
  try {
    await writeFile(form.file, form.frozen);
    const end = clock.monotonic() + freezeTimeoutMs;
    while (!(await form.isComplete())) {
      if (clock.monotonic() > end)
        throw new AppError("HOST_COMMAND", [
          "freezing a container",
          `not every process stood still within ${freezeTimeoutMs} ms`,
        ]);
      await clock.sleep(1);
    }
  } catch (e) {
    // a freeze that stays pending would strike later, out of nowhere
    await writeFile(form.file, form.thawed).catch(() => {}); // gone: then there is nothing to thaw
    throw e;
  }
}

async function pageOut({ memory, isAsked }: Form): Promise<boolean> {
  if (memory === undefined) return false;
  while (await isAsked()) {
    const bytes = Number(await read(`${memory}/memory.current`));
    if (!bytes) return true;
    try {
      await writeFile(`${memory}/memory.reclaim`, String(Math.min(bytes, reclaimBytes)), { flag: "r+" });
    } catch (e) {
      if (systemCode(e) === "EAGAIN") return true; // no more can be had
      if (systemCode(e) === "ENOENT") return false; // a kernel before 5.19
      throw e;
    }
  }
  return true;
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
