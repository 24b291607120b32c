import { execFile } from "node:child_process";
import { mkdir, open, stat, writeFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { type Child, startChild, waitReady } from "../scripts/child.ts";
import { watchdogBinary } from "../scripts/oci-image.ts";
import { freePort } from "../test/support/free-port.ts";
import { tmpDir } from "../test/support/tmp.ts";
import { type Measurement, quantile, summary } from "./measure.ts";
import { childrenOf, compileC, cpuOf, memoryOf } from "./process.ts";

const run = promisify(execFile);
const seconds = 4;
const rounds = 3;
const starts = 50;

/** A server under load: its address, the processes whose CPU time is its own, and those that it starts per request. */
interface Server {
  readonly port: number;
  /** CPU time of the server itself and, in a fork mode, of the programs it ran, in µs so far. */
  cpu(): Promise<{ own: number; children: number }>;
}

/**
 * The watchdog by itself, on loopback and without a container. http mode beside nginx (one worker, no access log) with
 * the same upstream; classic mode beside a C program that starts the same child; start; memory; size. All take turns.
 */
export async function watchdog(): Promise<Measurement[]> {
  await using up = new AsyncDisposableStack();
  const { path: dir } = up.use(await tmpDir());
  await onDisk(watchdogBinary());
  const upstreamPort = await freePort();
  const upstream = await compileC(dir, "upstream");
  const http = await startWatchdog(up, dir, {
    mode: "http",
    fprocess: `${upstream} ${upstreamPort}`,
    upstream_url: `http://127.0.0.1:${upstreamPort}`,
  });
  const nginx = await startNginx(up, dir, upstreamPort);
  const classic = await startWatchdog(up, dir, { fprocess: "/bin/cat" });
  const c = await startForkServer(up, dir);
  const results: Measurement[] = [];
  const quiet = { mode: "http", fprocess: "/bin/cat", upstream_url: url(upstreamPort) };
  const idle = await settled((await startWatchdog(up, dir, { fprocess: "/bin/cat" }, "_/health")).pid);
  const idleHttp = await settled((await startWatchdog(up, dir, quiet, "_/health")).pid);
  for (const method of ["POST", "GET"] as const)
    results.push(...(await compare(dir, `http mode, ${method}`, method, { watchdog: http, nginx })));
  results.push(...(await compare(dir, "classic mode, cat, POST", "POST", { watchdog: classic, "C fork server": c })));
  await run("wrk", ["-t1", "-c16", "-d15s", "-s", await script(dir, "POST"), url(http.port)]);
  results.push(
    ...memory("idle", idle),
    ...memory("http mode, idle", idleHttp),
    ...memory("http mode, after far more than 100,000 requests", await settled(http.pid)),
  );
  results.push(...(await startTimes(dir, upstream)));
  const size = (await stat(watchdogBinary())).size;
  results.push({ name: "size of the binary", unit: "MB", value: +(size / 1e6).toFixed(1), peers: {} });
  return results;
}

/** Rates and CPU time per request; ours is the first server. */
async function compare(
  dir: string,
  name: string,
  method: "GET" | "POST",
  servers: Record<string, Server>,
): Promise<Measurement[]> {
  const samples = new Map(Object.keys(servers).map((who) => [who, [] as Load[]]));
  for (const server of Object.values(servers)) await load(dir, server, method, 1);
  for (let i = 0; i < rounds; i++)
    for (const [who, server] of Object.entries(servers))
      samples.get(who)!.push(await load(dir, server, method, seconds));
  const middle = (what: keyof Load, digits: number) =>
    Object.fromEntries(
      [...samples].map(([who, loads]) => [
        who,
        +quantile(
          loads.map((l) => l[what]),
          0.5,
        ).toFixed(digits),
      ]),
    );
  const line = (what: string, unit: string, of: Record<string, number>): Measurement => {
    const [[, value], ...peers] = Object.entries(of) as [[string, number], ...[string, number][]];
    return { name: `watchdog, ${name}: ${what}`, unit, value, peers: Object.fromEntries(peers) };
  };
  const lines = [line("requests/s", "", middle("rate", 0)), line("CPU/request", "µs", middle("own", 1))];
  if ([...samples.values()].flat().some((l) => l.children > 0))
    lines.push(line("CPU/request of the child", "µs", middle("children", 1)));
  return lines;
}

interface Load {
  rate: number;
  own: number;
  children: number;
}

async function load(dir: string, server: Server, method: "GET" | "POST", forSeconds: number): Promise<Load> {
  const before = await server.cpu();
  const options = ["-t1", "-c16", `-d${forSeconds}s`, "--timeout", "10s", "-s", await script(dir, method)];
  const { stdout } = await run("wrk", [...options, url(server.port)]);
  const after = await server.cpu();
  const [, count] = /(\d+) requests in/.exec(stdout) ?? [];
  const [, rate] = /Requests\/sec:\s+([\d.]+)/.exec(stdout) ?? [];
  if (!count || !rate || /Non-2xx|Socket errors/.test(stdout)) throw new Error(`wrk: ${stdout}`);
  return {
    rate: Number(rate),
    own: (after.own - before.own) / Number(count),
    children: (after.children - before.children) / Number(count),
  };
}

async function script(dir: string, method: "GET" | "POST"): Promise<string> {
  const file = `${dir}/${method}.lua`;
  const body = method === "POST" ? 'wrk.body = "hello, world!"\nwrk.headers["Content-Type"] = "text/plain"\n' : "";
  await writeFile(file, `wrk.method = "${method}"\n${body}`);
  return file;
}

function url(port: number): string {
  return `http://127.0.0.1:${port}/`;
}

async function startWatchdog(
  up: AsyncDisposableStack,
  dir: string,
  env: Record<string, string>,
  path = "",
): Promise<Server & { pid: number }> {
  const port = await freePort();
  const child = up.use(
    await startChild(watchdogBinary(), [], {
      logFile: "/dev/null",
      env: { PATH: process.env.PATH, TMPDIR: await subDir(dir, port), port: String(port), ...env },
    }),
  );
  await answers(child, url(port) + path, "the watchdog");
  return { port, pid: child.pid, cpu: () => cpuOf(child.pid) };
}

async function startForkServer(up: AsyncDisposableStack, dir: string): Promise<Server> {
  const port = await freePort();
  const program = await compileC(dir, "fork-server");
  const child = up.use(await startChild(program, [String(port), "/bin/cat"], { logFile: "/dev/null" }));
  await answers(child, url(port), "the fork server");
  return { port, cpu: () => cpuOf(child.pid) };
}

async function startNginx(up: AsyncDisposableStack, dir: string, upstreamPort: number): Promise<Server> {
  const port = await freePort();
  const place = await subDir(dir, port);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  await writeFile(
    `${place}/nginx.conf`,
    `daemon off; user root; worker_processes 1; pid ${place}/pid; error_log ${place}/error.log;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 100000000;
  ${temporary.map((name) => `${name}_temp_path ${place}/${name};`).join(" ")}
  upstream function { server 127.0.0.1:${upstreamPort}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`,
  );
  const logFile = `${place}/log`;
  const child = up.use(await startChild("nginx", ["-p", place, "-c", `${place}/nginx.conf`], { logFile }));
  await answers(child, url(port), "nginx", logFile);
  const workers = await childrenOf(child.pid);
  return {
    port,
    async cpu() {
      const all = await Promise.all([child, ...workers].map(({ pid }) => cpuOf(pid)));
      return { own: all.reduce((sum, { own }) => sum + own, 0), children: 0 };
    },
  };
}

/** Pages of a new file that are not on the disk yet count as dirty memory of whoever maps them. */
async function onDisk(path: string): Promise<void> {
  await using file = await open(path);
  await file.sync();
}

async function subDir(dir: string, port: number): Promise<string> {
  await mkdir(`${dir}/${port}`, { recursive: true }); // ports come back
  return `${dir}/${port}`;
}

async function answers(child: Child, address: string, what: string, logFile?: string): Promise<void> {
  const ready = () =>
    fetch(address, address.endsWith("health") ? {} : { method: "POST", body: "x" }).then(
      (response) => response.status === 200,
      () => false,
    );
  await waitReady(child, ready, { what, timeoutMs: 10_000, ...(logFile !== undefined && { logFile }) });
}

/**
 * Memory a while after the last request. Other watchdogs run meanwhile, as they do on a machine with functions: what
 * is private is so because nobody else has it, not because nobody else is there.
 */
async function settled(pid: number): Promise<Record<string, number>> {
  await delay(2000);
  return memoryOf(pid);
}

function memory(when: string, of: Record<string, number>): Measurement[] {
  return [
    { name: `watchdog, ${when}: private memory`, unit: "kB", value: of.Private_Dirty! + of.Private_Clean!, peers: {} },
    {
      name: `watchdog, ${when}: resident (the file's pages are shared)`,
      unit: "kB",
      value: of.Rss!,
      peers: {},
    },
  ];
}

/** From before the fork to the first 200 on /_/health, asked for by a C program; beside it the C upstream, the floor. */
async function startTimes(dir: string, upstream: string): Promise<Measurement[]> {
  const clock = await compileC(dir, "start-time");
  const took = { watchdog: [] as number[], "C server": [] as number[] };
  for (let i = 0; i < starts; i++) {
    const port = await freePort();
    const env = { PATH: process.env.PATH, TMPDIR: await subDir(dir, port), port: String(port), fprocess: "/bin/cat" };
    took.watchdog.push(await startTime(clock, [String(port), watchdogBinary()], env));
    took["C server"].push(await startTime(clock, [String(port), upstream, String(port)], {}));
  }
  return summary("watchdog, start to first 200", took);
}

async function startTime(clock: string, args: string[], env: NodeJS.ProcessEnv): Promise<number> {
  return Number((await run(clock, args, { env })).stdout);
}
