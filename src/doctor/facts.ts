import { X509Certificate } from "node:crypto";
import { constants, existsSync, statfsSync } from "node:fs";
import { access, readdir, readFile, realpath } from "node:fs/promises";
import { createServer } from "node:net";
import { arch, release } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { messageOf, systemCode } from "../base/errors.ts";
import { hostAddress, parseSubnet } from "../base/subnet.ts";
import type { Config } from "../config.ts";
import { openContainerd } from "../host/containerd/client.ts";
import { execute } from "../host/exec.ts";
import { hostResolvFiles, nameservers } from "../host/net/resolv.ts";
import { runTrials, type TrialResult } from "./trials.ts";

export interface PortFact {
  readonly setting: string;
  readonly address: string;
  /** System code of the failure to listen, such as EADDRINUSE; undefined when it is free. */
  readonly failure: string | undefined;
}

export interface RuntimeFact {
  readonly name: "runc" | "crun";
  /** As the program says it. */
  readonly version: string;
  /** The distribution's package that it comes from, if it does, and the CVEs that the package's changelog names. */
  readonly package?: { readonly name: string; readonly version: string; readonly cves: readonly string[] };
}

/** A unit of systemd's: the properties of `systemctl show` that the checks look at. */
export interface UnitFact {
  readonly load: string;
  readonly active: string;
  readonly sub: string;
  /** `enabled`, `disabled`, …; empty when there is no file. */
  readonly file: string;
}

/** What was found on this machine; everything that the checks judge. */
export interface Facts {
  readonly isRoot: boolean;
  /** As `uname -r` says it. */
  readonly kernel: string;
  readonly arch: string;
  /** undefined: not tried, which takes root. */
  readonly trials: readonly TrialResult[] | undefined;
  readonly cgroup: { readonly version: 0 | 1 | 2; readonly freezer: boolean; readonly missing: readonly string[] };
  readonly seccomp: boolean;
  /** Whether frames between ports of a bridge pass iptables; undefined when br_netfilter is not loaded. */
  readonly bridgeNetfilter: boolean | undefined;
  readonly forwarding: boolean;
  /** What `iptables --version` prints; undefined without iptables. */
  readonly iptables: string | undefined;
  /** Programs beside us that change firewall rules. */
  readonly neighbours: readonly ("ufw" | "firewalld" | "docker")[];
  readonly napdRuns: boolean;
  readonly ports: readonly PortFact[];
  readonly dns: {
    /** Setting dns.servers. */
    readonly configured: readonly string[];
    /** The `nameserver` lines of the host's files together. */
    readonly host: readonly string[];
    /** Of the bridge: our own server. */
    readonly own: string;
  };
  readonly containerd: { readonly socket: string; readonly version?: string; readonly failure?: string };
  readonly runtimes: readonly RuntimeFact[];
  readonly missingPlugins: readonly string[];
  readonly pluginDirs: readonly string[];
  /** Of tls.certificate; undefined when none is set. Its end is in ms since the epoch. */
  readonly certificate: { readonly file: string; readonly validTo?: number; readonly failure?: string } | undefined;
  /** undefined where systemd does not run. */
  readonly units: { readonly service: UnitFact; readonly socket: UnitFact } | undefined;
  /** For remedies. */
  readonly bridge: string;
  readonly gatewayPort: number;
  readonly disks: readonly { readonly path: string; readonly freeBytes: number; readonly reserveBytes: number }[];
  /** ms since the epoch. */
  readonly now: number;
  /** undefined where nothing tells. */
  readonly timeSynchronized: boolean | undefined;
}

/** Looks at this machine; changes nothing on it and does not need a running napd. */
export async function gatherFacts(config: Config): Promise<Facts> {
  const isRoot = process.getuid?.() === 0;
  const napdRuns = await isTaken(config.paths.run);
  const { imageRoots, ...state } = await containerd(config);
  return {
    isRoot,
    kernel: release(),
    arch: arch(),
    trials: isRoot ? await runTrials() : undefined,
    cgroup: await cgroups(),
    seccomp: existsSync("/proc/sys/kernel/seccomp/actions_avail"),
    bridgeNetfilter: flagOf(await read("/proc/sys/net/bridge/bridge-nf-call-iptables")),
    forwarding: flagOf(await read("/proc/sys/net/ipv4/ip_forward")) ?? false,
    iptables: (await output("iptables", "--version"))?.trim(),
    neighbours: await neighbours(),
    napdRuns,
    ports: await ports(config),
    dns: {
      configured: config.dns.servers,
      host: nameservers((await Promise.all(hostResolvFiles.map(read))).join("\n")),
      own: hostAddress(parseSubnet(config.network.subnet)),
    },
    containerd: state,
    runtimes: await runtimes(),
    missingPlugins: await missingPlugins(config.network.plugins),
    pluginDirs: config.network.plugins,
    certificate: await certificate(config.tls),
    units: await units(),
    bridge: config.network.bridge,
    gatewayPort: config.gateway.listen.port,
    disks: disks(config, imageRoots),
    now: Date.now(),
    timeSynchronized: await timeSynchronized(),
  };
}

async function read(file: string): Promise<string> {
  return readFile(file, "utf8").catch(() => "");
}

/** "1" or "0" of a file of /proc/sys. */
function flagOf(text: string): boolean | undefined {
  return text === "" ? undefined : text.trim() === "1";
}

/** Standard output of a program; undefined when it is missing or fails. */
async function output(command: string, ...args: string[]): Promise<string | undefined> {
  return execute(command, args).then(
    ({ code, stdout }) => (code === 0 ? stdout : undefined),
    () => undefined,
  );
}

async function cgroups(): Promise<Facts["cgroup"]> {
  const wanted = ["cpu", "memory", "pids"];
  const lacks = (found: readonly string[]) => wanted.filter((name) => !found.includes(name));
  const unified = await read("/sys/fs/cgroup/cgroup.controllers");
  // every group but the root has cgroup.freeze, since Linux 5.2
  if (unified !== "")
    return { version: 2, freezer: isAtLeast(release(), [5, 2]), missing: lacks(unified.split(/\s+/)) };
  const trees = (await readdir("/sys/fs/cgroup").catch(() => [])).flatMap((name) => name.split(","));
  if (trees.length === 0) return { version: 0, freezer: false, missing: wanted };
  return { version: 1, freezer: trees.includes("freezer"), missing: lacks(trees) };
}

/** Compares the numbers that a version begins with. */
export function isAtLeast(version: string, least: readonly number[]): boolean {
  const found = (/^v?(\d+(?:\.\d+)*)/.exec(version)?.[1] ?? "").split(".").map(Number);
  for (const [i, number] of least.entries()) if ((found[i] ?? 0) !== number) return (found[i] ?? 0) > number;
  return true;
}

async function neighbours(): Promise<Facts["neighbours"]> {
  const ufw = /^ENABLED=yes/m.test(await read("/etc/ufw/ufw.conf"));
  const firewalld = existsSync("/run/firewalld");
  const docker = existsSync("/run/docker.sock");
  return [ufw && "ufw", firewalld && "firewalld", docker && "docker"].filter((name) => name !== false) as (
    | "ufw"
    | "firewalld"
    | "docker"
  )[];
}

/** Whether a napd holds the directory: it listens on an abstract socket of that name for as long as it runs. */
async function isTaken(dir: string): Promise<boolean> {
  const held = await realpath(dir).catch(() => dir);
  return (await read("/proc/net/unix")).split("\n").some((line) => line.endsWith(` @napd:${held}`));
}

async function ports(config: Config): Promise<PortFact[]> {
  const found: PortFact[] = [];
  for (const [setting, address] of [
    ["gateway.listen", config.gateway.listen],
    ["tls.listen", config.tls.listen],
    ["metrics.listen", config.metrics.listen],
  ] as const) {
    if (address === undefined) continue;
    const { host, port } = address;
    found.push({ setting, address: `${host}:${port}`, failure: await listenFailure(host, port) });
  }
  return found;
}

function listenFailure(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (e) => resolve(systemCode(e) ?? messageOf(e)));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

/** Asks containerd; where it does not answer, its configuration says where it keeps images. */
async function containerd({
  containerd: { socket, snapshotter },
}: Config): Promise<Facts["containerd"] & { imageRoots: readonly string[] }> {
  try {
    using client = await openContainerd({ socket, snapshotter, timeoutMs: 3000 });
    const { version } = await client.server.version(3000);
    return { socket, version, imageRoots: [...new Set((await client.server.imageRoots(snapshotter)).map(dirname))] };
  } catch (e) {
    const [, root = "/var/lib/containerd"] =
      /^root\s*=\s*["']([^"']+)["']/m.exec(await read("/etc/containerd/config.toml")) ?? [];
    return { socket, failure: messageOf(e), imageRoots: [root] };
  }
}

async function runtimes(): Promise<Facts["runtimes"]> {
  const found: RuntimeFact[] = [];
  for (const name of ["runc", "crun"] as const) {
    const version = /\bversion:? (\S+)/.exec((await output(name, "--version")) ?? "")?.[1];
    if (version === undefined) continue;
    const from = await packageOf(name);
    found.push({ name, version, ...(from && { package: from }) });
  }
  return found;
}

/** Debian's package that a program belongs to; its changelog names the CVEs that it closes under an older number. */
async function packageOf(program: string): Promise<RuntimeFact["package"]> {
  const path = (await output("sh", "-c", `command -v ${program}`))?.trim();
  const owner = path && (await output("dpkg-query", "--search", path));
  const name = owner ? owner.split(":", 1)[0]! : undefined;
  // biome-ignore lint/suspicious/noTemplateCurlyInString: the form that dpkg-query fills in
  const version = name && (await output("dpkg-query", "--show", "--showformat=${Version}", name));
  if (!name || !version) return undefined;
  const packed = await readFile(`/usr/share/doc/${name}/changelog.Debian.gz`).catch(() => undefined);
  const changelog = packed === undefined ? "" : gunzipSync(packed).toString("utf8");
  return { name, version, cves: [...new Set(changelog.match(/\bCVE-\d{4}-\d+\b/g))] };
}

async function certificate({ certificate: file }: Config["tls"]): Promise<Facts["certificate"]> {
  if (file === "") return undefined;
  try {
    return { file, validTo: Date.parse(new X509Certificate(await readFile(file)).validTo) };
  } catch (e) {
    return { file, failure: messageOf(e) };
  }
}

async function units(): Promise<Facts["units"]> {
  if (!existsSync("/run/systemd/system")) return undefined;
  return { service: await unit("napd.service"), socket: await unit("napd.socket") };
}

async function unit(name: string): Promise<UnitFact> {
  const text =
    (await output("systemctl", "show", "--property=LoadState,ActiveState,SubState,UnitFileState", name)) ?? "";
  const property = (key: string) => new RegExp(`^${key}=(.*)$`, "m").exec(text)?.[1] ?? "";
  return {
    load: property("LoadState"),
    active: property("ActiveState"),
    sub: property("SubState"),
    file: property("UnitFileState"),
  };
}

async function missingPlugins(dirs: readonly string[]): Promise<string[]> {
  const missing: string[] = [];
  for (const plugin of ["bridge", "host-local"]) {
    const tries = dirs.map((dir) => access(join(dir, plugin), constants.X_OK));
    if ((await Promise.allSettled(tries)).every(({ status }) => status === "rejected")) missing.push(plugin);
  }
  return missing;
}

function disks({ paths, images, logs }: Config, imageRoots: readonly string[]): Facts["disks"] {
  const wanted = [
    { path: paths.data, reserveBytes: images.disk_reserve },
    { path: paths.logs, reserveBytes: logs.min_free },
    ...imageRoots.map((path) => ({ path, reserveBytes: images.disk_reserve })),
  ];
  return wanted.map(({ path, reserveBytes }) => {
    const { bavail, bsize } = statfsSync(nearest(path));
    return { path, reserveBytes, freeBytes: bavail * bsize };
  });
}

/** The path itself, or the closest folder above it that exists: where it would be made. */
function nearest(path: string): string {
  return existsSync(path) ? path : nearest(dirname(path));
}

async function timeSynchronized(): Promise<boolean | undefined> {
  if (existsSync("/run/systemd/timesync/synchronized")) return true;
  const said = (await output("timedatectl", "show", "-p", "NTPSynchronized", "--value"))?.trim();
  return said === "yes" ? true : said === "no" ? false : undefined;
}
