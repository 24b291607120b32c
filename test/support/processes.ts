import { readdirSync, readFileSync } from "node:fs";
import { commandLine } from "../../scripts/private-containerd.ts";

/** Processes of this machine, but us, whose command line has `text`. */
export function processesNaming(text: string): { pid: number; line: string }[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .map((pid) => ({ pid, line: commandLine(pid).join(" ") }))
    .filter(({ line }) => line.includes(text));
}

/** Pids of the processes that `pid` started and that still run. */
export function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((candidate) => Number.isInteger(candidate) && parentOf(candidate) === pid);
}

/** The fourth field of /proc/PID/stat (proc_pid_stat(5)); the second, in parentheses, may hold anything. */
function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return undefined; // ended this moment
  }
}
