import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import { promisify } from "node:util";
import { mapBounded } from "../src/base/bounded.ts";
import { webImage } from "../test/support/images.ts";
import { openWorld, type World } from "../test/support/world.ts";
import type { Measurement } from "./measure.ts";
import { memoryOf, openFiles } from "./process.ts";

const run = promisify(execFile);

/** `NAPD_BENCH_CYCLES`: how many. */
const cycles = Number(process.env.NAPD_BENCH_CYCLES ?? 1000);
/** At once. */
const width = 4;
/** Until everything has been used once: the first cycles open connections and fill caches. */
const warmUp = Math.min(100, cycles / 10);

/**
 * Deploys and deletes over and over, with a call in between. Fails when there are more addresses, network namespaces,
 * interfaces, firewall rules, containers, snapshots, files or descriptors at the end than after the first cycles.
 */
export async function churn(): Promise<Measurement[]> {
  await using world = await openWorld();
  await world.start({ "functions.grace": "50ms", "images.pull_policy": "Never" });
  await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
  await repeat(world, warmUp);
  const before = await count(world);
  const begin = performance.now();
  await repeat(world, cycles - warmUp);
  const seconds = (performance.now() - begin) / 1000;
  const after = await count(world);
  const grown = Object.keys(before).filter((what) => what !== "memory" && after[what]! > before[what]! + slack(what));
  if (grown.length > 0)
    throw new Error(grown.map((what) => `${what} grew from ${before[what]} to ${after[what]}`).join("; "));
  return [
    {
      name: "deploy, call and delete, 4 at a time",
      unit: "cycles/s",
      value: +((cycles - warmUp) / seconds).toFixed(1),
      peers: {},
    },
    ...Object.keys(before).map((what) => ({
      name: `${what} after ${warmUp} cycles | after ${cycles}`,
      unit: what === "memory" ? "MB" : "",
      value: after[what]!,
      peers: { "at first": before[what]! },
    })),
  ];
}

/** Connections of the bench itself come and go; what leaks would be there some hundred times. */
function slack(what: string): number {
  return what.startsWith("open files") ? 10 : 0;
}

async function repeat(world: World, times: number): Promise<void> {
  await mapBounded(
    Array.from({ length: times }, (_, i) => `web-${i % width}-${i}`),
    width,
    async (service) => {
      await ok(world.api("POST", "/system/functions", { service, image: "web:1" }), 202);
      await ok(world.call(`/function/${service}`), 200);
      await ok(world.api("DELETE", "/system/functions", { functionName: service }), 202);
    },
  );
}

async function ok(answer: ReturnType<World["call"]>, wanted: number): Promise<void> {
  const { status, text } = await answer;
  if (status !== wanted) throw new Error(`${status}: ${text}`);
}

async function count(world: World): Promise<Record<string, number>> {
  const { pid } = world.napd();
  const traces = await world.traces();
  const of = (kind: string) => traces.filter((t) => t.startsWith(`${kind} `)).length;
  const interfaces = (await run("ip", ["-o", "link"])).stdout.split("\n").filter((l) => l.includes(world.bridge));
  return {
    addresses: (await readdir(`${world.paths.run}/cni/ipam/${world.bridge}`)).filter((f) => /^\d/.test(f)).length,
    "network namespaces": of("netns"),
    interfaces: interfaces.length,
    "firewall rules": of("rule"),
    "containers, tasks, snapshots, leases": of("container") + of("task") + of("snapshot") + of("lease"),
    "files and logs": of("file") + of("log"),
    cgroups: of("cgroup"),
    "open files of napd": await openFiles(pid),
    "open files of containerd": await openFiles(world.containerd.pid!),
    memory: Math.round((await memoryOf(pid)).Rss! / 1024),
  };
}
