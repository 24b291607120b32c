import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import type { Clock } from "../../base/clock.ts";

/**
 * Where a host keeps the addresses of its resolvers, best first. Where a local stub answers, /etc/resolv.conf names
 * only that stub (127.0.0.53), and the real ones are in the files of systemd-resolved or NetworkManager.
 */
export const hostResolvFiles: readonly string[] = [
  "/etc/resolv.conf",
  "/run/systemd/resolve/resolv.conf",
  "/run/NetworkManager/no-stub-resolv.conf",
];

/** Milliseconds between two looks at the files: a laptop that changes networks is right again within that. */
const lookEveryMs = 5000;

export interface HostResolversOptions {
  readonly clock: Clock;
  /** Addresses that are never to be asked: our own. */
  readonly own: readonly string[];
  /** @default hostResolvFiles */
  readonly files?: readonly string[];
}

/**
 * The host's resolvers, kept up to date. The function it resolves with answers at once from memory and, at most every
 * 5 s, has the files looked at in the background; they are read only when their time of change differs.
 *
 * Loopback addresses are left out, as a stub there may send queries back to us; somebody whose only resolver listens
 * on loopback names it in setting dns.servers. With none found the list is empty and forwards fail.
 */
export async function openHostResolvers(options: HostResolversOptions): Promise<() => readonly string[]> {
  const { clock, own, files = hostResolvFiles } = options;
  const cache = new Map<string, { changed: number; servers: string[] }>();
  let servers: readonly string[] = [];
  let lookedAt = clock.monotonic();

  const look = async (): Promise<void> => {
    for (const file of files) {
      const found = (await serversIn(file, cache)).filter((server) => !isLoopback(server) && !own.includes(server));
      if (found.length === 0) continue;
      servers = found;
      return;
    }
    servers = [];
  };
  await look();
  return () => {
    if (clock.monotonic() - lookedAt >= lookEveryMs) {
      lookedAt = clock.monotonic();
      void look().catch(() => {}); // what was known stays
    }
    return servers;
  };
}

async function serversIn(file: string, cache: Map<string, { changed: number; servers: string[] }>): Promise<string[]> {
  try {
    const changed = (await stat(file)).mtimeMs;
    const known = cache.get(file);
    if (known?.changed === changed) return known.servers;
    const servers = nameservers(await readFile(file, "utf8"));
    cache.set(file, { changed, servers });
    return servers;
  } catch {
    return []; // most hosts have only one of the files
  }
}

/** The addresses of the `nameserver` lines of a resolv.conf (resolv.conf(5)), in order, without doubles. */
export function nameservers(text: string): string[] {
  const found = [...text.matchAll(/^[ \t]*nameserver[ \t]+([^\s#;]+)/gm)].map(([, address]) => address!);
  return [...new Set(found.filter((address) => isIP(address) !== 0))];
}

/** 127.0.0.0/8, ::1, and the "any" addresses, which a connect takes as loopback. */
export function isLoopback(address: string): boolean {
  return /^(::ffff:)?127\./.test(address) || ["::1", "0.0.0.0", "::"].includes(address.toLowerCase());
}

/**
 * The functions' /etc/resolv.conf. No search list: every name of ours is complete as it is, and a search list would
 * turn each lookup of an outside name into several. `ndots:1` says so even where an image's libc has another default.
 */
export function resolvConfText(dnsAddress: string): string {
  return `nameserver ${dnsAddress}\noptions ndots:1\n`;
}

/**
 * A function's /etc/hosts. The gateway is not in it, as the DNS server knows it and stays right when the subnet
 * changes. With `hostname` the container's own name resolves too, without which some runtimes (Java, Erlang) wait for
 * a DNS answer at start; 127.0.1.1 is the address that Debian uses for that purpose.
 */
export function hostsText(hostname?: string): string {
  const own = hostname ? `127.0.1.1 ${hostname}\n` : "";
  return `127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n${own}`;
}
