/** What the kernel says about a process, and helpers to have some beside a bench. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);
/** Microseconds per clock tick of /proc/PID/stat: USER_HZ is 100 on every Linux that this runs on. */
const tickUs = 10_000;

/** CPU time in µs: of the process itself, and of the children it has waited for. */
export async function cpuOf(pid: number): Promise<{ own: number; children: number }> {
  const fields = await statOf(pid);
  const ticks = (n: number) => Number(fields[n - 3]); // numbers as in proc(5); the third comes first here
  return { own: (ticks(14) + ticks(15)) * tickUs, children: (ticks(16) + ticks(17)) * tickUs };
}

/** The fields of /proc/PID/stat after the name, which may itself hold blanks and brackets. */
async function statOf(pid: number): Promise<string[]> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  return text.slice(text.lastIndexOf(")") + 2).split(" ");
}

/** kB by name, such as `Private_Dirty` and `Rss`. */
export async function memoryOf(pid: number): Promise<Record<string, number>> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
  return Object.fromEntries([...text.matchAll(/^(\w+):\s+(\d+) kB/gm)].map(([, name, kb]) => [name, Number(kb)]));
}

export async function openFiles(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

/** Processes whose parent it is, with their states: `Z` has ended and was not waited for. */
export async function childrenOf(pid: number): Promise<{ pid: number; state: string }[]> {
  const all = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    all.map(async (child) => {
      const [state, parent] = await statOf(child).catch(() => []);
      return Number(parent) === pid ? [{ pid: child, state: state! }] : [];
    }),
  );
  return found.flat();
}

/** Compiles one of the C programs beside this file; returns the program. */
export async function compileC(dir: string, name: string, ...options: string[]): Promise<string> {
  await run("cc", ["-O2", ...options, "-o", `${dir}/${name}`, `${import.meta.dirname}/${name}.c`]);
  return `${dir}/${name}`;
}
