/** Reverse proxies to measure beside ours: one worker each, no access log, kept-alive connections to one upstream. */
import { mkdir, writeFile } from "node:fs/promises";
import { startChild, waitReady } from "../scripts/child.ts";
import { freePort } from "../test/support/free-port.ts";
import { childrenOf, cpuOf, memoryOf } from "./process.ts";

export interface Upstream {
  readonly host: string;
  readonly port: number;
}

/** A proxy that runs on loopback. */
export interface ReverseProxy {
  readonly url: string;
  /** CPU time of all of its processes so far, µs. */
  cpu(): Promise<number>;
  /** Resident memory of all of its processes, kB. */
  memory(): Promise<number>;
}

interface Recipe {
  readonly file: string;
  readonly config: (at: { dir: string; port: number; upstream: Upstream }) => string;
  readonly command: (file: string, dir: string) => [program: string, ...args: string[]];
}

const recipes = {
  nginx: {
    file: "nginx.conf",
    config: ({ dir, port, upstream }) => `daemon off; user root; worker_processes 1; pid ${dir}/pid;
error_log ${dir}/error.log;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 100000000;
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${dir}/${name};`).join(" ")}
  upstream function { server ${upstream.host}:${upstream.port}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`,
    command: (file, dir) => ["nginx", "-p", dir, "-c", file],
  },
  HAProxy: {
    file: "haproxy.cfg",
    config: ({ port, upstream }) => `global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:${port}
  default_backend function
backend function
  http-reuse always
  server function ${upstream.host}:${upstream.port}
`,
    command: (file) => ["haproxy", "-db", "-f", file],
  },
  Caddy: {
    file: "Caddyfile",
    config: ({ port, upstream }) => `{
  admin off
  auto_https off
}
http://127.0.0.1:${port} {
  reverse_proxy ${upstream.host}:${upstream.port}
}
`,
    command: (file) => ["caddy", "run", "--config", file, "--adapter", "caddyfile"],
  },
} satisfies Record<string, Recipe>;

export type ProxyName = keyof typeof recipes;
export const proxyNames = Object.keys(recipes) as ProxyName[];

/** Starts one, until `up` is disposed. Files go into a directory of their own below `dir`. */
export async function startProxy(
  name: ProxyName,
  up: AsyncDisposableStack,
  dir: string,
  upstream: Upstream,
): Promise<ReverseProxy> {
  const { file, config, command }: Recipe = recipes[name];
  const port = await freePort();
  const place = `${dir}/${name}-${port}`;
  await mkdir(place);
  await writeFile(`${place}/${file}`, config({ dir: place, port, upstream }));
  const [program, ...args] = command(`${place}/${file}`, place);
  const logFile = `${place}/log`;
  const env = { ...process.env, HOME: place, XDG_DATA_HOME: place, XDG_CONFIG_HOME: place };
  const child = up.use(await startChild(program, args, { logFile, env }));
  const url = `http://127.0.0.1:${port}`;
  const ready = () =>
    fetch(url, { method: "POST", body: "x" }).then(
      ({ status }) => status === 200,
      () => false,
    );
  await waitReady(child, ready, { what: name, timeoutMs: 10_000, logFile });
  const pids = [child.pid, ...(await childrenOf(child.pid)).map(({ pid }) => pid)];
  const total = async (of: (pid: number) => Promise<number>) =>
    (await Promise.all(pids.map(of))).reduce((sum, n) => sum + n, 0);
  return {
    url,
    cpu: () => total(async (pid) => (await cpuOf(pid)).own),
    memory: () => total(async (pid) => (await memoryOf(pid)).Rss!),
  };
}
