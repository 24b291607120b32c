import { readdirSync, readFileSync } from "node:fs";
import { family } from "./metrics.ts";

/** Pages and clock ticks as Linux shows them in /proc: 4 KiB and 100 a second on every platform served here. */
const PAGE = 4096;
const TICKS = 100;

/** What /proc says about this process, under the names that every Prometheus client uses. */
export function printProcessMetrics(): string {
  const stat = readFileSync("/proc/self/stat", "latin1");
  const f = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // proc(5): f[0] is field 3
  const limits = readFileSync("/proc/self/limits", "latin1");
  const limit = (name: string): string => new RegExp(`^${name}\\s+(\\S+)`, "m").exec(limits)?.[1] ?? "0";
  const boot = Number(/^btime (\d+)/m.exec(readFileSync("/proc/stat", "latin1"))?.[1] ?? 0);
  const cpu = (Number(f[11]) + Number(f[12])) / TICKS;
  const space = limit("Max address space");
  return (
    one("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu) +
    one("process_max_fds", "gauge", "Maximum number of open file descriptors.", Number(limit("Max open files"))) +
    one("process_open_fds", "gauge", "Number of open file descriptors.", readdirSync("/proc/self/fd").length) +
    one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", Number(f[21]) * PAGE) +
    one(
      "process_start_time_seconds",
      "gauge",
      "Start time since unix epoch in seconds.",
      boot + Number(f[19]) / TICKS,
    ) +
    one("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", Number(f[20])) +
    one(
      "process_virtual_memory_max_bytes",
      "gauge",
      "Maximum amount of virtual memory available in bytes.",
      space === "unlimited" ? -1 : Number(space),
    )
  );
}

function one(name: string, type: "counter" | "gauge", help: string, value: number): string {
  return family(name, type, help, [`${name} ${value}\n`]);
}
