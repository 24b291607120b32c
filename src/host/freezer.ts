import type { Clock } from "../base/clock.ts";
import { AppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type FreezerGroup, freezerOf } from "./cgroup.ts";
import type { TaskProcess, Tasks } from "./containerd/tasks.ts";

/** A container in containerd. */
export interface ContainerName {
  readonly namespace: string;
  readonly container: string;
}

/**
 * The only place that freezes and thaws: direct writes to the container's cgroup, because that takes 0.2 ms where
 * containerd's Pause and Resume take 8; these by setting, or where the cgroup cannot be written. The two are never
 * mixed on one container: who froze it thaws it (contracts/containerd.md §2.3). The truth is read from the kernel:
 * containerd goes on saying RUNNING.
 */
export interface Freezer {
  /** Resolves when every process of the container stands still. Undoes a freeze that does not complete. */
  freeze(name: ContainerName): Promise<void>;
  /** Fine when it is not frozen. */
  thaw(name: ContainerName): Promise<void>;
  /** Whether it stands still, or is about to. Fails when its process is gone. */
  isFrozen(name: ContainerName, task: TaskProcess): Promise<boolean>;
  /** The container is no more. */
  forget(name: ContainerName): void;
}

export interface FreezerOptions {
  tasks: Pick<Tasks, "get" | "pause" | "resume">;
  by: "cgroup" | "containerd";
  /** Whether the memory of what is frozen goes to swap. */
  pageOut: boolean;
  clock: Clock;
  log: Logger;
  /** Finds a process' group; another one is for tests. */
  groupOf?: (pid: number, clock: Clock) => Promise<FreezerGroup | null>;
}

export function openFreezer({ tasks, by, pageOut, clock, log, groupOf = freezerOf }: FreezerOptions): Freezer {
  /** Groups of containers, so that a thaw asks nobody where it is; null where we may not write. */
  const groups = new Map<string, FreezerGroup | null>();
  /** Who was frozen by containerd. */
  const paused = new Set<string>();
  /** One after the other: a reclaim keeps a thread busy. */
  let reclaiming: Promise<void> = Promise.resolve();
  let canPageOut = pageOut;

  const keyOf = ({ namespace, container }: ContainerName) => `${namespace}/${container}`;

  async function find(name: ContainerName, pid?: number): Promise<FreezerGroup | null> {
    const known = groups.get(keyOf(name));
    if (known !== undefined) return known;
    const group = await groupOf(pid ?? (await taskOf(name)).pid, clock);
    groups.set(keyOf(name), group);
    return group;
  }

  async function taskOf(name: ContainerName): Promise<TaskProcess> {
    const task = await tasks.get(name.container, { namespace: name.namespace });
    if (!task) throw new AppError("FUNCTION_UNAVAILABLE", [name.container, "its process is gone"]);
    return task;
  }

  function reclaim(name: ContainerName, group: FreezerGroup): void {
    reclaiming = reclaiming.then(async () => {
      try {
        if (canPageOut && !(await group.pageOut())) {
          canPageOut = false;
          log.warn({}, "scale.page_out has no effect: it needs cgroup v2 and Linux 5.19");
        }
      } catch (e) {
        log.warn({ replica: name.container, err: messageOf(e) }, "memory of a frozen replica was not moved to swap");
      }
    });
  }

  return {
    async freeze(name) {
      const group = by === "cgroup" ? await find(name) : null;
      if (group) {
        await group.freeze();
        if (canPageOut) reclaim(name, group);
        return;
      }
      paused.add(keyOf(name)); // before, since a call that fails may have had its effect
      await tasks.pause(name.container, { namespace: name.namespace });
    },
    async thaw(name) {
      if (!paused.has(keyOf(name))) {
        await (await find(name))?.thaw();
        return;
      }
      const { status } = await taskOf(name);
      if (status === "PAUSED" || status === "PAUSING")
        await tasks.resume(name.container, { namespace: name.namespace });
      paused.delete(keyOf(name));
    },
    async isFrozen(name, task) {
      if (task.status === "PAUSED" || task.status === "PAUSING") {
        paused.add(keyOf(name));
        return true;
      }
      return (await (await find(name, task.pid))?.isFrozen()) ?? false;
    },
    forget(name) {
      groups.delete(keyOf(name));
      paused.delete(keyOf(name));
    },
  };
}
