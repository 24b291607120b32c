import { existsSync, readFileSync, statfsSync } from "node:fs";
import { execute } from "../host/exec.ts";

/** Something that the kernel must be able to do, tried out and not guessed. */
interface Trial {
  readonly what: string;
  readonly remedy: string;
  works(netns: string): Promise<boolean>;
}

export interface TrialResult {
  readonly what: string;
  readonly remedy: string;
  readonly works: boolean;
}

const inNetns = (netns: string, ...command: string[]) => succeeds("ip", "netns", "exec", netns, ...command);
const masquerade = ["-w", "-t", "nat", "-A", "POSTROUTING", "-s", "10.63.0.0/16", "-j", "MASQUERADE"];

const trials: readonly Trial[] = [
  {
    what: "overlay file systems",
    remedy: "load the kernel module with `modprobe overlay`, or use a kernel that has it",
    async works() {
      const isListed = () => /\boverlay$/m.test(readFileSync("/proc/filesystems", "utf8"));
      return isListed() || ((await succeeds("modprobe", "overlay")) && isListed());
    },
  },
  {
    what: "control groups",
    remedy: "mount them with `mount -t cgroup2 none /sys/fs/cgroup`; in a container, start it with --privileged",
    async works() {
      const cgroup2 = 0x63677270;
      return statfsSync("/sys/fs/cgroup").type === cgroup2 || existsSync("/sys/fs/cgroup/freezer");
    },
  },
  {
    what: "network namespaces",
    remedy: "use a kernel with CONFIG_NET_NS; in a container, start it with --privileged",
    works: (netns) => succeeds("ip", "netns", "add", netns),
  },
  {
    what: "network bridges",
    remedy: "load the kernel module with `modprobe bridge`",
    works: (netns) => inNetns(netns, "ip", "link", "add", "br0", "type", "bridge"),
  },
  {
    what: "veth pairs",
    remedy: "load the kernel module with `modprobe veth`",
    works: (netns) => inNetns(netns, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"),
  },
  {
    what: "iptables with a nat table",
    remedy: "load the kernel modules with `modprobe -a ip_tables iptable_nat nf_tables nft_compat`",
    works: (netns) => inNetns(netns, "iptables", ...masquerade),
  },
];

/**
 * Tries everything in a network namespace of its own, so that the host sees none of it. Wants root. Without network
 * namespaces the rest, which is tried inside of one, is left out.
 */
export async function runTrials(): Promise<TrialResult[]> {
  const netns = `napd-preflight-${process.pid}`;
  const results: TrialResult[] = [];
  try {
    for (const { what, remedy, works } of trials) {
      results.push({ what, remedy, works: await works(netns).catch(() => false) });
      if (what === "network namespaces" && !results.at(-1)!.works) break;
    }
  } finally {
    await succeeds("ip", "netns", "delete", netns);
  }
  return results;
}

/** False also when the program is missing. */
async function succeeds(command: string, ...args: string[]): Promise<boolean> {
  return execute(command, args).then(
    ({ code }) => code === 0,
    () => false,
  );
}
