/**
 * What the kernel must be able to do, tried out and not guessed. Prints one line for each thing that is missing, with
 * its remedy, and exits with 1; prints nothing when all is well.
 */
import { execFile } from "node:child_process";
import { existsSync, readFileSync, statfsSync } from "node:fs";
import { promisify } from "node:util";

const run = promisify(execFile);

interface Need {
  readonly what: string;
  readonly remedy: string;
  has(): Promise<boolean>;
}

/** A network namespace that everything is tried in, so that the host sees none of it. */
const netns = `napd-preflight-${process.pid}`;
const inNetns = (...command: string[]) => works("ip", "netns", "exec", netns, ...command);

const needs: Need[] = [
  {
    what: "overlay file systems",
    remedy: "load the kernel module with `modprobe overlay`, or use a kernel that has it",
    async has() {
      const isListed = () => /\boverlay$/m.test(readFileSync("/proc/filesystems", "utf8"));
      return isListed() || ((await works("modprobe", "overlay")) && isListed());
    },
  },
  {
    what: "control groups",
    remedy: "mount them with `mount -t cgroup2 none /sys/fs/cgroup`; in a container, start it with --privileged",
    async has() {
      const cgroup2 = 0x63677270;
      return statfsSync("/sys/fs/cgroup").type === cgroup2 || existsSync("/sys/fs/cgroup/freezer");
    },
  },
  {
    what: "network namespaces",
    remedy: "use a kernel with CONFIG_NET_NS; in a container, start it with --privileged",
    has: () => works("ip", "netns", "add", netns),
  },
  {
    what: "network bridges",
    remedy: "load the kernel module with `modprobe bridge`",
    has: () => inNetns("ip", "link", "add", "br0", "type", "bridge"),
  },
  {
    what: "veth pairs",
    remedy: "load the kernel module with `modprobe veth`",
    has: () => inNetns("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"),
  },
  {
    what: "iptables with a nat table",
    remedy: "load the kernel modules with `modprobe -a ip_tables iptable_nat nf_tables nft_compat`",
    has: () => inNetns("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-s", "10.63.0.0/16", "-j", "MASQUERADE"),
  },
];

async function works(command: string, ...args: string[]): Promise<boolean> {
  try {
    await run(command, args);
    return true;
  } catch {
    return false;
  }
}

try {
  for (const need of needs) {
    if (await need.has()) continue;
    console.error(`napd: this machine lacks ${need.what}: ${need.remedy}`);
    process.exitCode = 1;
    if (need.what === "network namespaces") break; // the rest is tried inside of one
  }
} finally {
  await works("ip", "netns", "delete", netns);
}
