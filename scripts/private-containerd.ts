/**
 * A containerd of our own, beside or instead of the machine's: for `npm start` where none runs, and for tests, which
 * may kill it. Its CRI plugin is off, its images persist in a directory of choice, its runtime state does not.
 */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { mkdir, realpath, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { basename } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { type Child, startChild, waitReady } from "./child.ts";

const run = promisify(execFile);

export interface PrivateContainerdOptions {
  /** What outlives it: images and snapshots in `containerd/`, `containerd.toml`, `.log` and `.pid`. */
  readonly dir: string;
  /** What does not: `containerd/` and the socket. Keep it short, a socket's path has at most 107 bytes. */
  readonly runDir: string;
}

/** A containerd with a socket of its own. Disposing it stops it, kills its containers and empties the run directory. */
export interface PrivateContainerd extends AsyncDisposable {
  readonly socket: string;
  readonly logFile: string;
  /** Undefined while it is stopped. */
  readonly pid: number | undefined;
  /** Starts it again after `stop` or `kill9` and waits until its socket answers. */
  start(): Promise<void>;
  /** Stops it in order. Shims and their containers go on running, as they do with any containerd. */
  stop(): Promise<void>;
  /** Kills it without warning; containers go on running. */
  kill9(): Promise<void>;
  /** Kills every shim of this socket with its processes, and takes away their mounts and cgroups. */
  killLeftShims(): Promise<void>;
}

/** Starts a private containerd; one that an earlier run left behind with the same `dir` is stopped first. */
export async function openContainerd(options: PrivateContainerdOptions): Promise<PrivateContainerd> {
  await mkdir(options.dir, { recursive: true });
  await mkdir(options.runDir, { recursive: true });
  const places = new Places(await realpath(options.dir), await realpath(options.runDir));
  if (Buffer.byteLength(places.ttrpcSocket) > 107)
    throw new Error(`the path of a socket has at most 107 bytes, this one has more: ${places.ttrpcSocket}`);
  await stopLeftOver(places.pidFile, places.config);
  await writeFile(places.config, configText(places));
  const containerd = new Containerd(places);
  await containerd.start();
  return containerd;
}

class Places {
  readonly config: string;
  readonly logFile: string;
  readonly pidFile: string;
  readonly root: string;
  readonly state: string;
  readonly socket: string;
  readonly ttrpcSocket: string;

  constructor(dir: string, runDir: string) {
    this.config = `${dir}/containerd.toml`;
    this.logFile = `${dir}/containerd.log`;
    this.pidFile = `${dir}/containerd.pid`;
    this.root = `${dir}/containerd`;
    this.state = `${runDir}/containerd`;
    this.socket = `${runDir}/containerd.sock`;
    this.ttrpcSocket = `${this.socket}.ttrpc`;
  }
}

/**
 * Version 2 is read by every containerd from 1.3 to 2.x. Plugins that this version does not have may be named. Off
 * are those that reach out of our two directories: CRI (both spellings), NRI (one socket per machine) and opt.
 */
function configText(places: Places): string {
  const text = JSON.stringify; // a JSON string is a TOML basic string
  return `version = 2
root = ${text(places.root)}
state = ${text(places.state)}
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
]

[grpc]
  address = ${text(places.socket)}

[ttrpc]
  address = ${text(places.ttrpcSocket)}
`;
}

class Containerd implements PrivateContainerd {
  readonly socket: string;
  readonly logFile: string;
  readonly #places: Places;
  #child: Child | undefined;

  constructor(places: Places) {
    this.socket = places.socket;
    this.logFile = places.logFile;
    this.#places = places;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async start(): Promise<void> {
    if (this.#child) throw new Error("this containerd runs already");
    const { config, logFile, pidFile, socket } = this.#places;
    this.#child = await startChild("containerd", ["--config", config], { logFile });
    await writeFile(pidFile, `${this.#child.pid}\n`);
    try {
      await waitReady(this.#child, () => answers(socket), { what: "containerd", timeoutMs: 30_000, logFile });
    } catch (e) {
      await this.stop();
      throw e;
    }
  }

  stop(): Promise<void> {
    return this.#end((child) => child.stop());
  }

  kill9(): Promise<void> {
    return this.#end((child) => child.kill9());
  }

  killLeftShims(): Promise<void> {
    return killShims(this.#places);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await killShims(this.#places);
    const { state, socket, ttrpcSocket } = this.#places;
    for (const path of [state, socket, ttrpcSocket]) await rm(path, { recursive: true, force: true });
  }

  async #end(how: (child: Child) => Promise<unknown>): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child) await how(child);
    await rm(this.#places.pidFile, { force: true });
  }
}

/** Whether somebody listens on the socket. */
export function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.once("connect", () => resolve(true)).once("error", () => resolve(false));
    connection.once("connect", () => connection.destroy());
  });
}

/**
 * Stops what an earlier run left behind: SIGTERM, and SIGKILL after 10 s. The number in the pid file is believed only
 * if that process was started with `word` on its command line.
 */
export async function stopLeftOver(pidFile: string, word: string): Promise<void> {
  const pid = Number(read(pidFile));
  const isOurs = () => pid > 0 && commandLine(pid).includes(word);
  if (isOurs()) signal(pid, "SIGTERM");
  if (!(await waitUntil(() => !isOurs(), 10_000))) signal(pid, "SIGKILL");
  await waitUntil(() => !isOurs(), 5_000);
}

/**
 * Containers are found by their shims, and by containerd's bundles for those whose shim is dead already. Frozen ones
 * are thawed: under cgroup v1 a frozen process does not die before. Shims go last and get a moment to reap their
 * children, because process 1 of a container, where tests may run, often reaps nobody.
 */
async function killShims(places: Places): Promise<void> {
  const bundles = listBundles(places.state);
  const ids = new Set(bundles.map((bundle) => bundle.id));
  const shims = shimsOf(places.socket);
  const inside = withDescendants([...shims, ...bundles.flatMap((bundle) => bundle.init)]);
  for (const shim of shims) inside.delete(shim);
  const cgroups = new Set([...inside].flatMap(cgroupDirs).filter((dir) => ids.has(basename(dir))));
  for (const pid of inside) signal(pid, "SIGKILL");
  for (const dir of cgroups) await thaw(dir);
  await waitUntil(() => [...inside].every((pid) => stat(pid) === undefined), 500);
  for (const pid of shims) signal(pid, "SIGKILL");
  const all = [...inside, ...shims];
  if (!(await waitUntil(() => all.every(isGone), 10_000)))
    throw new Error(`these processes do not die: ${all.filter((pid) => !isGone(pid)).join(" ")}`);
  await unmountUnder(places.state);
  for (const dir of cgroups) removeEmpty(dir);
  for (const bundle of bundles) if (bundle.shimSocket) await rm(bundle.shimSocket, { force: true });
}

interface Bundle {
  readonly id: string;
  /** The container's first process, when it still lives. */
  readonly init: number[];
  /** Outside of our directories, in /run/containerd/s. */
  readonly shimSocket: string | undefined;
}

/** containerd's bundles: STATE/io.containerd.runtime.v2.task/NAMESPACE/ID. */
function listBundles(state: string): Bundle[] {
  const tasks = `${state}/io.containerd.runtime.v2.task`;
  return list(tasks).flatMap((namespace) =>
    list(`${tasks}/${namespace}`).map((id) => {
      const dir = `${tasks}/${namespace}/${id}`;
      const pid = Number(read(`${dir}/init.pid`));
      const isOurs = pid > 0 && cgroupDirs(pid).some((cgroup) => cgroup.endsWith(`/${id}`)); // numbers are used again
      const address = /unix:\/\/([^"\s]+)/.exec(read(`${dir}/bootstrap.json`) || read(`${dir}/address`));
      return { id, init: isOurs ? [pid] : [], shimSocket: address?.[1] };
    }),
  );
}

function shimsOf(socket: string): number[] {
  return processes().filter((pid) => {
    const line = commandLine(pid);
    return line[line.indexOf("-address") + 1] === socket && line[0]?.includes("containerd-shim") === true;
  });
}

function withDescendants(roots: number[]): Set<number> {
  const parents = processes().map((pid) => ({ pid, parent: parentOf(pid) }));
  const found = new Set(roots);
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const { pid, parent } of parents) if (parent !== undefined && found.has(parent)) found.add(pid);
  }
  return found;
}

/** The directories of a process' cgroups below /sys/fs/cgroup: one for v2, one per controller for v1. */
function cgroupDirs(pid: number): string[] {
  const lines = read(`/proc/${pid}/cgroup`).split("\n").filter(Boolean);
  return lines.flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path === undefined || path === "/") return [];
    const mounts = controllers ? [`/${controllers.replace("name=", "")}`] : ["", "/unified"];
    return mounts.map((mount) => `/sys/fs/cgroup${mount}${path}`).filter((dir) => existsSync(dir));
  });
}

async function thaw(cgroup: string): Promise<void> {
  for (const [file, value] of [
    ["freezer.state", "THAWED"],
    ["cgroup.freeze", "0"],
  ])
    if (existsSync(`${cgroup}/${file}`)) await writeFile(`${cgroup}/${file}`, value!).catch(() => {});
}

/** Mount points at or below `dir`, the innermost first. */
export function mountsUnder(dir: string): string[] {
  const points = read("/proc/self/mounts")
    .split("\n")
    .flatMap((line) => line.split(" ")[1] ?? [])
    .map((path) => path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))));
  return points.filter((point) => point === dir || point.startsWith(`${dir}/`)).reverse();
}

/** Unmounts everything at or below `dir`, so that deleting it deletes nothing behind a mount. */
export async function unmountUnder(dir: string): Promise<void> {
  for (const point of mountsUnder(dir))
    await run("umount", ["--lazy", point]).catch((e) => {
      if (mountsUnder(dir).includes(point)) throw e; // else its shim was faster
    });
}

function processes(): number[] {
  return list("/proc").map(Number).filter(Number.isInteger);
}

/** The words a process was started with; none when it has ended. */
export function commandLine(pid: number): string[] {
  return read(`/proc/${pid}/cmdline`).split("\0");
}

/** Fields 3 and 4 of /proc/PID/stat; the second is a name in brackets that may hold anything. */
function stat(pid: number): { state: string; parent: number } | undefined {
  const text = read(`/proc/${pid}/stat`);
  const [state, parent] = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return state ? { state, parent: Number(parent) } : undefined;
}

function parentOf(pid: number): number | undefined {
  return stat(pid)?.parent;
}

/** A zombie is gone: its parent only has not asked yet. */
function isGone(pid: number): boolean {
  return (stat(pid)?.state ?? "Z") === "Z";
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // has ended
  }
}

function removeEmpty(dir: string): void {
  try {
    rmdirSync(dir);
  } catch {
    // runc was faster, or somebody else is in it
  }
}

async function waitUntil(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) return false;
    await delay(10);
  }
  return true;
}

function list(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return ""; // a process or bundle that has ended since it was listed
  }
}
