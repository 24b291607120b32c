import { readFileSync } from "node:fs";
import { ownChildren } from "./child.ts";
import { foreign } from "./runtime.ts";

const WNOHANG = 1; // wait.h

/**
 * As PID 1, collects what functions leave behind: processes whose parents are gone become our children, and stay
 * zombies until somebody waits for them. Only such ones are waited for, each by its own id: the exit code of a process
 * that we started belongs to the runtime, which waits for it by id as well.
 */
export function reapOrphans(): void {
  const library = foreign()?.dlopen("libc.so.6", { waitpid: { args: ["i32", "ptr", "i32"], returns: "i32" } });
  if (!library) return;
  const { waitpid } = library.symbols;
  const reap = (): void => {
    for (const pid of childrenOf(process.pid)) if (!ownChildren.has(pid)) waitpid!(pid, null, WNOHANG);
  };
  // The signal says when; the clock is for those that died while it was being handled.
  process.on("SIGCHLD", () => setTimeout(reap, 20));
  setInterval(reap, 5000).unref();
}

/** Ids of our children, dead ones included. Threads have children of their own; orphans go to the first thread. */
function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1");
    return text.split(" ").filter(Boolean).map(Number);
  } catch {
    return []; // /proc is not mounted, or the kernel has no such file
  }
}
