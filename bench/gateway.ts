import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { openWorld, type World } from "../test/support/world.ts";
import { upstreamImage } from "./images.ts";
import { type Measurement, quantile } from "./measure.ts";
import { cpuOf, memoryOf } from "./process.ts";
import { proxyNames, type ReverseProxy, startProxy } from "./proxies.ts";

const run = promisify(execFile);
const seconds = 4;
const rounds = 3;
const image = "docker.io/library/upstream:1";

/**
 * A warm function through the gateway, beside other reverse proxies to the same replica: requests/s and CPU time per
 * request at 16 connections, latency at one (and of the function itself, asked directly), memory at the end. All take
 * turns, so that the machine's moods hit them alike.
 */
export async function gateway(): Promise<Measurement[]> {
  await using up = new AsyncDisposableStack();
  const world = up.use(await openWorld());
  await world.start({ "images.pull_policy": "Never" });
  const host = await deployUpstream(world);
  const { pid } = world.napd();
  const proxies: Record<string, ReverseProxy> = {
    napd: {
      url: `${world.url}/function/upstream`,
      cpu: async () => (await cpuOf(pid)).own,
      memory: async () => (await memoryOf(pid)).Rss!,
    },
  };
  for (const name of proxyNames) proxies[name] = await startProxy(name, up, world.dir, { host, port: 8080 });
  const direct = { "function itself": { url: `http://${host}:8080` } };

  const results: Measurement[] = [];
  for (const method of ["GET", "POST"] as const) {
    const script = await wrkScript(world.dir, method);
    const loads = await inTurns(proxies, (proxy) => load(proxy, script));
    results.push(
      line(`gateway, ${method}, 16 connections: requests/s`, "", loads, ({ rate }) => rate, 0),
      line(`gateway, ${method}, 16 connections: CPU/request`, "µs", loads, ({ cpu }) => cpu, 1),
    );
  }
  const script = await wrkScript(world.dir, "GET");
  const latencies = await inTurns({ ...proxies, ...direct }, ({ url }) => latency(url, script));
  for (const which of ["p50", "p99"] as const)
    results.push(line(`gateway, 1 connection: latency, ${which}`, "ms", latencies, (l) => l[which], 3));
  const memory = new Map<string, number[]>();
  for (const [who, proxy] of Object.entries(proxies)) memory.set(who, [(await proxy.memory()) / 1024]);
  results.push(line("gateway, after all of this: resident memory", "MB", memory, (mb) => mb, 1));
  return results;
}

/** The C upstream as a function; returns its replica's address. */
export async function deployUpstream(world: World): Promise<string> {
  await world.import(await upstreamImage(world.dir, image));
  const { status, text } = await world.api("POST", "/system/functions", { service: "upstream", image });
  if (status !== 202) throw new Error(`deploying the upstream: ${status} ${text}`);
  const { stdout } = await run("ip", ["-o", "-4", "neigh", "show", "dev", world.bridge]);
  const address = /^([\d.]+)/.exec(stdout)?.[1];
  if (!address) throw new Error(`no neighbour on ${world.bridge}`);
  return address;
}

async function inTurns<P, T>(proxies: Record<string, P>, measure: (proxy: P) => Promise<T>): Promise<Map<string, T[]>> {
  const samples = new Map(Object.keys(proxies).map((who) => [who, [] as T[]]));
  for (const proxy of Object.values(proxies)) await measure(proxy); // warm
  for (let round = 0; round < rounds; round++)
    for (const [who, proxy] of Object.entries(proxies)) samples.get(who)!.push(await measure(proxy));
  return samples;
}

/** The middle of each series; ours is the first. */
function line<T>(
  name: string,
  unit: string,
  samples: ReadonlyMap<string, T[]>,
  of: (sample: T) => number,
  digits: number,
): Measurement {
  const [[, value], ...peers] = [...samples].map(
    ([who, list]) => [who, +quantile(list.map(of), 0.5).toFixed(digits)] as const,
  ) as [[string, number], ...[string, number][]];
  return { name, unit, value, peers: Object.fromEntries(peers) };
}

async function load(proxy: ReverseProxy, script: string): Promise<{ rate: number; cpu: number }> {
  const before = await proxy.cpu();
  const { rate, count } = await wrk(["-c16"], script, proxy.url);
  return { rate, cpu: ((await proxy.cpu()) - before) / count };
}

/** Ms at one connection. */
async function latency(url: string, script: string): Promise<{ p50: number; p99: number }> {
  const { stdout } = await wrk(["-c1", "--latency"], script, url);
  const ms = (percent: number) => {
    const [, number, unit] = new RegExp(`^ +${percent}%\\s+([\\d.]+)(us|ms|s)$`, "m").exec(stdout)!;
    return Number(number) * { us: 1e-3, ms: 1, s: 1e3 }[unit as "us" | "ms" | "s"];
  };
  return { p50: ms(50), p99: ms(99) };
}

async function wrk(options: string[], script: string, url: string) {
  const { stdout } = await run("wrk", ["-t1", `-d${seconds}s`, "--timeout", "10s", ...options, "-s", script, url]);
  const [, count] = /(\d+) requests in/.exec(stdout) ?? [];
  const [, rate] = /Requests\/sec:\s+([\d.]+)/.exec(stdout) ?? [];
  if (!count || !rate || /Non-2xx|Socket errors/.test(stdout)) throw new Error(`wrk: ${stdout}`);
  return { stdout, count: Number(count), rate: Number(rate) };
}

async function wrkScript(dir: string, method: "GET" | "POST"): Promise<string> {
  const file = `${dir}/${method}.lua`;
  const body = method === "POST" ? 'wrk.body = "hello, world!"\nwrk.headers["Content-Type"] = "text/plain"\n' : "";
  await writeFile(file, `wrk.method = "${method}"\n${body}`);
  return file;
}
