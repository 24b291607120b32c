import { readdirSync } from "node:fs";
import { commandLine } from "../../scripts/private-containerd.ts";

/** Processes of this machine, but us, whose command line has `text`. */
export function processesNaming(text: string): { pid: number; line: string }[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .map((pid) => ({ pid, line: commandLine(pid).join(" ") }))
    .filter(({ line }) => line.includes(text));
}
