import { execFile } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { type Child, startChild, waitReady } from "../../scripts/child.ts";
import { openContainerd, type PrivateContainerd } from "../../scripts/private-containerd.ts";
import { freePort } from "./free-port.ts";
import { tmpDir } from "./tmp.ts";

const run = promisify(execFile);
const entry = `${import.meta.dirname}/../../src/main.ts`;

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
}

/** A napd of its own on a containerd, a bridge and directories of its own. Disposing it removes every trace. */
export interface World extends AsyncDisposable {
  readonly dir: string;
  readonly url: string;
  readonly port: number;
  readonly metricsUrl: string;
  readonly bridge: string;
  /** Of the functions. */
  readonly namespace: string;
  readonly containerd: PrivateContainerd;
  /** By which its napd is kept apart from others on this machine. */
  readonly settings: Readonly<Record<string, string>>;
  /** Directories and files that napd works with. */
  readonly paths: { data: string; run: string; logs: string };
  /**
   * Starts napd and waits until it answers; `more` are further settings, `by` a program and its first arguments that
   * runs what the rest of its arguments say.
   */
  start(more?: Record<string, string>, env?: NodeJS.ProcessEnv, by?: readonly string[]): Promise<void>;
  /** The running napd. */
  napd(): Child;
  /** napd's log so far. */
  log(): Promise<string>;
  /** Runs another command of napd, such as `backup FILE`, with this world's settings; rejects when it fails. */
  command(args: string[], env?: NodeJS.ProcessEnv): Promise<{ stdout: string; stderr: string }>;
  /** Runs `napd import FILE`. */
  import(file: string): Promise<void>;
  /** A call of the API with the password, or with `authorization` instead; a body that is no string is sent as JSON. */
  api(method: string, path: string, body?: unknown, authorization?: string): Promise<Answer>;
  /** A call of the gateway without password. */
  call(path: string, init?: RequestInit): Promise<Answer>;
  ctr(...args: string[]): Promise<string>;
  /** What of functions is on this machine: containers, tasks, snapshots, leases, namespaces, interfaces, rules, files. */
  traces(): Promise<string[]>;
  /** What a reboot loses: napd, containerd, its containers, /run, network namespaces, the bridge. Disks stay. */
  reboot(): Promise<void>;
}

export interface WorldOptions {
  /** Size of the file system that containerd keeps images on; without it that is the one of TMPDIR. */
  diskMib?: number;
  /** Path of an installed napd to run instead of the sources. */
  program?: string;
  /** Of the functions; without it one of its own. */
  namespace?: string;
  /** File of settings, which must be there whenever napd is run. */
  config?: string;
}

export async function openWorld({ diskMib, program, namespace, config }: WorldOptions = {}): Promise<World> {
  await using up = new AsyncDisposableStack();
  const { path: dir } = up.use(await tmpDir());
  const id = `nt${randomInt(0x10000, 0xfffff).toString(16)}`;
  const subnet = `10.${randomInt(200, 250)}.${randomInt(0, 255)}.0/24`;
  const port = await freePort();
  const metricsPort = await freePort();
  const paths = { data: `${dir}/data`, run: `${dir}/run`, logs: `${dir}/logs` };
  if (diskMib !== undefined) {
    await mkdir(`${dir}/c`);
    await run("mount", ["-t", "tmpfs", "-o", `size=${diskMib}m`, "tmpfs", `${dir}/c`]);
  }
  const containerd = up.use(await openContainerd({ dir: `${dir}/c`, runDir: `${dir}/r` }));
  const settings = {
    "gateway.listen": `0.0.0.0:${port}`,
    "metrics.listen": `127.0.0.1:${metricsPort}`,
    "containerd.socket": containerd.socket,
    "containerd.runc_root": `${dir}/runc`,
    "cgroup.parent": id,
    "paths.data": paths.data,
    "paths.run": paths.run,
    "paths.logs": paths.logs,
    "network.bridge": id,
    "network.subnet": subnet,
    "functions.namespace": namespace ?? `fn-${id}`,
    "functions.grace": "2s",
  };
  const flags = (more: Record<string, string> = {}) =>
    Object.entries({ ...settings, ...more }).flatMap(([k, v]) => ["--set", `${k}=${v}`]);
  const [command, ...first]: [string, ...string[]] = program === undefined ? [process.execPath, entry] : [program];
  if (config !== undefined) first.push("--config", config);
  const logFile = `${dir}/napd.log`;
  const url = `http://127.0.0.1:${port}`;
  let napd: Child | undefined;
  up.defer(async () => {
    await napd?.stop(60_000);
    // a last one in the mode that takes everything down, whatever the test left running
    const last = await startChild(command, [...first, ...flags({ "functions.on_stop": "remove" })], { logFile });
    await waitReady(last, healthy, { what: "napd", timeoutMs: 30_000, logFile }).catch(() => {});
    await last.stop(60_000);
    await containerd.killLeftShims();
    await removeCgroups(id);
    await removeCgroups(settings["functions.namespace"]); // of what a test ran by ctr
  });

  async function healthy(): Promise<boolean> {
    return fetch(`${url}/healthz`, { signal: AbortSignal.timeout(20_000) }).then(
      (r) => r.status === 200,
      () => false,
    );
  }

  async function request(path: string, init: RequestInit): Promise<Answer> {
    const response = await fetch(url + path, { redirect: "manual", ...init });
    return { status: response.status, headers: response.headers, text: await response.text() };
  }

  const ctr = async (...args: string[]) =>
    (await run("ctr", ["--address", containerd.socket, "--namespace", settings["functions.namespace"], ...args]))
      .stdout;

  async function traces(): Promise<string[]> {
    const lines = (text: string) => text.split("\n").filter((line) => line.trim() !== "");
    const found = await Promise.all([
      ctr("containers", "list", "--quiet").then((out) => lines(out).map((l) => `container ${l}`)),
      ctr("tasks", "list", "--quiet").then((out) => lines(out).map((l) => `task ${l}`)),
      ctr("snapshots", "list").then((out) =>
        lines(out)
          .slice(1)
          .map((l) => `snapshot ${l.replace(/\s+/g, " ")}`),
      ),
      ctr("leases", "list", "--quiet").then((out) => lines(out).map((l) => `lease ${l}`)),
      ctr("images", "list", "--quiet").then((out) => lines(out).map((l) => `image ${l}`)),
      ctr("content", "list", "--quiet").then((out) => lines(out).map((l) => `content ${l}`)),
      run("ip", ["netns", "list"]).then(({ stdout }) =>
        lines(stdout)
          .filter((l) => l.startsWith(id))
          .map((l) => `netns ${l}`),
      ),
      run("ip", ["-o", "link", "show", "master", id]).then(
        ({ stdout }) => lines(stdout).map((l) => `interface ${l.split(":")[1]}`),
        () => [],
      ),
      run("iptables-save", []).then(({ stdout }) =>
        lines(stdout)
          .filter((l) => l.includes(id) || l.includes(subnet.replace("0/24", "")))
          .map((l) => `rule ${l.replace(/ ?\[\d+:\d+\]/, "")}`),
      ),
      files(paths.run).then((all) => all.map((f) => `file ${f}`)),
      files(paths.logs).then((all) => all.map((f) => `log ${f}`)),
      files(`/sys/fs/cgroup/pids/${id}`).then((all) =>
        all.filter((f) => /\/.+\/cgroup.procs$/.test(f)).map((f) => `cgroup ${f}`),
      ),
    ]);
    return found
      .flat()
      .filter((f) => !f.startsWith("file cni/ipam/") || /\d+\.\d+\.\d+\.\d+$/.test(f))
      .sort();
  }

  const stack = up.move();
  return {
    dir,
    url,
    port,
    metricsUrl: `http://127.0.0.1:${metricsPort}/metrics`,
    bridge: id,
    namespace: settings["functions.namespace"],
    containerd,
    settings,
    paths,
    async start(more = {}, env = {}, by = []) {
      const [program, ...args] = [...by, command, ...first, ...flags(more)];
      napd = await startChild(program!, args, { logFile, env: { ...process.env, ...env } });
      await waitReady(napd, healthy, { what: "napd", timeoutMs: 30_000, logFile });
    },
    napd: () => napd!,
    log: () => readFile(logFile, "utf8"),
    command: ([name, ...args], env = {}) =>
      run(command, [...first, name!, ...flags(), ...args], { env: { ...process.env, ...env } }),
    async import(file) {
      await run(command, [...first, "import", ...flags(), file]);
    },
    async api(method, path, body, authorization) {
      const password = (await readFile(`${paths.data}/credentials/basic-auth-password`, "utf8")).trim();
      const auth = authorization ?? `Basic ${Buffer.from(`admin:${password}`).toString("base64")}`;
      const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
      return request(path, {
        method,
        headers: { authorization: auth },
        ...(text !== undefined && { body: text as string }),
      });
    },
    call: (path, init = {}) => request(path, init),
    ctr,
    traces,
    async reboot() {
      await napd?.kill9();
      await containerd.kill9();
      await containerd.killLeftShims();
      for (const name of (await readdir("/run/netns").catch(() => [])).filter((n) => n.startsWith(`${id}.`)))
        await run("ip", ["netns", "delete", name]);
      await run("ip", ["link", "delete", id]);
      await removeRules(id);
      await rm(paths.run, { recursive: true, force: true });
      await rm(`${dir}/r`, { recursive: true, force: true });
      await rm(`${dir}/runc`, { recursive: true, force: true });
      await mkdir(`${dir}/r`, { recursive: true });
      await containerd.start();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function files(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.filter((e) => e.isFile()).map((e) => `${e.parentPath.slice(dir.length)}/${e.name}`.replace(/^\//, ""));
}

/** Rules do not outlive a reboot. */
async function removeRules(id: string): Promise<void> {
  for (const table of ["nat", "mangle", "filter"]) {
    const { stdout } = await run("iptables-save", ["-t", table]);
    const kept = stdout.split("\n").filter((line) => !line.includes(id));
    const child = execFile("iptables-restore", ["-T", table]);
    child.stdin!.end(kept.join("\n"));
    await new Promise((resolve) => child.once("exit", resolve));
  }
}

/** The parent of our containers' cgroups stays when the last of them goes. */
async function removeCgroups(id: string): Promise<void> {
  for (const controller of await readdir("/sys/fs/cgroup")) {
    await run("find", [`/sys/fs/cgroup/${controller}/${id}`, "-depth", "-type", "d", "-delete"]).catch(() => {});
  }
}

/** Asks until the answer is what is wanted; fails with the last answer after `timeoutMs`. */
export async function eventually<T>(
  ask: () => Promise<T>,
  isRight: (value: T) => boolean,
  timeoutMs = 20_000,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await ask();
    if (isRight(value)) return value;
    if (performance.now() > end) throw new Error(`still not right after ${timeoutMs} ms: ${JSON.stringify(value)}`);
    await delay(20);
  }
}
