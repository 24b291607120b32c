import { posix } from "node:path";
import { AppError } from "../../base/errors.ts";
import profile from "./seccomp.json" with { type: "json" };
import type { ResolvedUser } from "./user.ts";

/** What the image's configuration says about the program to run (OCI image specification, `config`). */
export interface ImageProcess {
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  /** `KEY=VALUE` each. */
  readonly env?: readonly string[];
  /** @default "/" */
  readonly workingDir?: string;
  /** The image's USER, looked up (user.ts). */
  readonly user: ResolvedUser;
}

export interface Limits {
  /** Bytes, swap included; undefined is no limit. Values below `minMemoryBytes` are raised to it. */
  readonly memoryBytes?: number;
  /** Cores, such as 0.5; undefined is no limit. */
  readonly cpus?: number;
  /** Processes and threads. */
  readonly pids: number;
}

/** A directory or file of the host that the function sees. */
export interface ExtraMount {
  readonly source: string;
  readonly destination: string;
  /** @default true */
  readonly readOnly?: boolean;
}

export interface SpecInput {
  readonly image: ImageProcess;
  /** The program and its arguments, instead of the image's entrypoint and cmd. */
  readonly args?: readonly string[];
  readonly hostname: string;
  /** The function's own environment; wins over the image's. */
  readonly env: Readonly<Record<string, string>>;
  /** Path of the network namespace. */
  readonly netns: string;
  /** `/<namespace>/<id>`, or `slice:prefix:name` with the systemd driver (contracts/containerd.md §7). */
  readonly cgroupsPath: string;
  readonly limits: Limits;
  readonly readOnlyRoot: boolean;
  readonly mounts: {
    /** Host file that becomes /etc/resolv.conf. */
    readonly resolvConf: string;
    /** Host file that becomes /etc/hosts. */
    readonly hosts: string;
    /** Host directory that becomes /var/openfaas/secrets. */
    readonly secretsDir?: string;
  };
  readonly extraMounts?: readonly ExtraMount[];
}

export interface OciMount {
  destination: string;
  type: string;
  source: string;
  options: string[];
}

interface OciSeccompRule {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: { index: number; value: number; valueTwo?: number; op: string }[];
}

/** The part of the OCI runtime specification 1.0.2 that napd writes. */
export interface OciSpec {
  ociVersion: "1.0.2";
  process: {
    terminal: false;
    user: { uid: number; gid: number; additionalGids: number[] };
    args: string[];
    env: string[];
    cwd: string;
    capabilities: Record<"bounding" | "effective" | "inheritable" | "permitted" | "ambient", string[]>;
    rlimits: { type: string; soft: number; hard: number }[];
    noNewPrivileges: true;
    oomScoreAdj: number;
  };
  root: { path: "rootfs"; readonly: boolean };
  hostname: string;
  mounts: OciMount[];
  linux: {
    resources: {
      devices: { allow: false; access: string }[];
      memory?: { limit: number; swap: number };
      cpu?: { quota: number; period: number; shares: number };
      pids: { limit: number };
    };
    cgroupsPath: string;
    namespaces: { type: string; path?: string }[];
    sysctl: Record<string, string>;
    seccomp: { defaultAction: string; defaultErrnoRet: number; architectures: string[]; syscalls: OciSeccompRule[] };
    maskedPaths: string[];
    readonlyPaths: string[];
  };
}

/** Where functions look for their secrets (contracts/api.md §5.2). */
export const secretsPath = "/var/openfaas/secrets";

/** The smallest memory limit, in bytes: runc's own start needs some MiB (contracts/containerd.md §8). */
export const minMemoryBytes = 16 * 2 ** 20;

/** Bytes of each tmpfs. They count against the function's memory limit. */
const tmpfsSize = "size=65536k";

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * The runtime specification of a function's container: everything a function does not need is taken away by default
 * (contracts/containerd.md §8 has the list and its reasons). Pure.
 * Throws IMAGE_UNUSABLE when there is nothing to run or the working directory is not acceptable, HOST_LACKS on an
 * architecture without a seccomp name.
 */
export function runtimeSpec(input: SpecInput): OciSpec {
  const { image, limits } = input;
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: image.user.uid, gid: image.user.gid, additionalGids: [...image.user.additionalGids] },
      args: argsOf(input),
      env: environmentOf(image, input.env),
      cwd: workingDirOf(image.workingDir),
      // None at all, not even for root: no device nodes, no foreign files, no raw sockets. Low ports are allowed by
      // a sysctl below instead of NET_BIND_SERVICE.
      capabilities: { bounding: [], effective: [], inheritable: [], permitted: [], ambient: [] },
      rlimits: [
        // A hard limit above containerd's own would make Tasks.Create fail where it lacks CAP_SYS_RESOURCE.
        { type: "RLIMIT_NOFILE", soft: 1024, hard: 4096 },
        { type: "RLIMIT_CORE", soft: 0, hard: 0 },
      ],
      noNewPrivileges: true,
      oomScoreAdj: 100, // functions die before the daemon
    },
    root: { path: "rootfs", readonly: input.readOnlyRoot },
    hostname: input.hostname,
    mounts: mountsOf(input),
    linux: {
      resources: {
        devices: [{ allow: false, access: "rwm" }], // runc adds null zero full random urandom tty ptmx console
        ...(limits.memoryBytes !== undefined && { memory: memoryOf(limits.memoryBytes) }),
        ...(limits.cpus !== undefined && { cpu: cpuOf(limits.cpus) }),
        pids: { limit: limits.pids },
      },
      cgroupsPath: input.cgroupsPath,
      namespaces: [
        { type: "pid" },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
        { type: "network", path: input.netns },
        { type: "cgroup" },
      ],
      sysctl: {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647", // ping by ICMP datagram sockets, without NET_RAW
      },
      seccomp: seccompFor(process.arch),
      maskedPaths,
      readonlyPaths,
    },
  };
}

const maskedPaths = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/sys/firmware",
  "/sys/devices/virtual/powercap",
];

const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

function argsOf({ args, image }: SpecInput): string[] {
  const all = args ?? [...(image.entrypoint ?? []), ...(image.cmd ?? [])];
  if (all.length === 0) throw new AppError("IMAGE_UNUSABLE", ["it has neither an ENTRYPOINT nor a CMD to run"]);
  return [...all];
}

/** The image's environment, overridden by key with the function's own; PATH and HOME are added when missing. */
function environmentOf(image: ImageProcess, own: Readonly<Record<string, string>>): string[] {
  const merged = new Map<string, string>([["PATH", defaultPath]]);
  if (image.user.home) merged.set("HOME", image.user.home);
  for (const entry of image.env ?? []) {
    const [key] = entry.split("=", 1); // only the first "=" separates: values may contain more
    merged.set(key!, entry.slice(key!.length + 1));
  }
  for (const [key, value] of Object.entries(own)) merged.set(key, value);
  return [...merged].map(([key, value]) => `${key}=${value}`);
}

/**
 * The directory to start in. One below /proc is refused: /proc/self/fd/N may be a directory of the host that the
 * runtime has open at that moment, which put the function outside its root (CVE-2024-21626); /dev/fd is a link to
 * the same. A link of that kind inside the image is for runc to refuse (1.1.12 and the distributions' fixes do).
 */
function workingDirOf(text: string | undefined): string {
  const dir = posix.resolve("/", text || "/");
  if (dir.includes("\0") || /^\/(proc|dev|sys)(\/|$)/.test(dir))
    throw new AppError("IMAGE_UNUSABLE", [`its WORKDIR "${text}" is no directory to work in`]);
  return dir;
}

function mountsOf({ readOnlyRoot, mounts, extraMounts = [] }: SpecInput): OciMount[] {
  return [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    tmpfs("/dev", ["nosuid", "strictatime", "mode=755", "size=1024k"]),
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    // Always, as /dev is a tmpfs of 1 MiB anyway: shared memory of POSIX (Python's multiprocessing, databases).
    tmpfs("/dev/shm", ["nosuid", "noexec", "nodev", "mode=1777", tmpfsSize]),
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
    // Runtimes size their heaps by what they read here; the cgroup namespace shows them their own part only.
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: ["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
    // Only with a read-only root, where it is the one writable place (contracts/api.md §3.1: the watchdog keeps its
    // lock file there). A writable root has the image's own /tmp on disk: a tmpfs over it would hide what the image
    // put there and charge every temporary file to the function's memory limit.
    ...(readOnlyRoot ? [tmpfs("/tmp", ["nosuid", "nodev", "mode=1777", tmpfsSize])] : []),
    bind(mounts.resolvConf, "/etc/resolv.conf", true),
    bind(mounts.hosts, "/etc/hosts", true),
    // The directory and not its files: a bind of a file pins its inode, and a replaced secret would never show.
    ...(mounts.secretsDir ? [bind(mounts.secretsDir, secretsPath, true, ["noexec"])] : []),
    ...extraMounts.map(({ source, destination, readOnly = true }) => bind(source, destination, readOnly)),
  ];
}

function tmpfs(destination: string, options: string[]): OciMount {
  return { destination, type: "tmpfs", source: "tmpfs", options };
}

function bind(source: string, destination: string, readOnly: boolean, options: string[] = []): OciMount {
  return {
    destination,
    type: "bind",
    source,
    options: ["bind", readOnly ? "ro" : "rw", "nosuid", "nodev", ...options],
  };
}

/** `swap` is memory and swap together (runtime specification, "memory"): equal means no swap. */
function memoryOf(bytes: number): { limit: number; swap: number } {
  const limit = Math.max(minMemoryBytes, bytes);
  return { limit, swap: limit };
}

/** Microseconds of quota per period: the kernel takes no quota below 1 ms, and no shares below 2. */
function cpuOf(cpus: number): { quota: number; period: number; shares: number } {
  const period = 100_000;
  return {
    quota: Math.max(1000, Math.round(cpus * period)),
    period,
    shares: Math.max(2, Math.round(cpus * 1024)),
  };
}

/** One architecture only: each more costs some milliseconds at every start, and a 32-bit table is one more way in. */
function seccompFor(arch: string): OciSpec["linux"]["seccomp"] {
  const name = arch === "x64" ? "SCMP_ARCH_X86_64" : arch === "arm64" ? "SCMP_ARCH_AARCH64" : undefined;
  if (!name) throw new AppError("HOST_LACKS", [`a supported processor (${arch})`, "napd runs on x86-64 and arm64"]);
  const { defaultAction, defaultErrnoRet, syscalls } = profile;
  return { defaultAction, defaultErrnoRet, architectures: [name], syscalls };
}
