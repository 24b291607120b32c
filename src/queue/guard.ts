import { lookup } from "node:dns/promises";
import { BlockList, isIP, isIPv4 } from "node:net";
import { AppError, messageOf } from "../base/errors.ts";

/** Nobody's business from outside: this machine, its links, its metadata service, and whoever listens to all. */
const internal: readonly string[] = [
  ...["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"],
  ...["::/128", "::1/128", "fe80::/10", "ff00::/8"],
  // these stand for IPv4 addresses that nobody would look at: compatible ones, NAT64, Teredo, 6to4
  ...["::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"],
];

/** All addresses of a host. */
export type LookUp = (host: string, options: { all: true }) => Promise<{ address: string }[]>;

/**
 * Which addresses callbacks may go to: anybody who can call a function can name one, so none that only this machine
 * can reach. `own`: further subnets that are refused; `allowed`: subnets that an administrator has opened.
 */
export class Guard {
  readonly #refused: BlockList;
  readonly #allowed: BlockList;
  readonly #lookUp: LookUp;

  constructor(own: readonly string[], allowed: readonly string[], lookUp: LookUp = lookup) {
    this.#refused = listOf([...internal, ...own]);
    this.#allowed = listOf(allowed);
    this.#lookUp = lookUp;
  }

  allows(address: string): boolean {
    const plain = address.replace(/%.*$/, "");
    const family = isIPv4(plain) ? "ipv4" : "ipv6"; // BlockList takes ::ffff:a.b.c.d for a.b.c.d itself
    return this.#allowed.check(plain, family) || !this.#refused.check(plain, family);
  }

  /** Fails with CALLBACK_REFUSED when the host is an address that is not allowed; names are not looked up here. */
  check(hostname: string): void {
    const host = unbracketed(hostname);
    if (isIP(host) && !this.allows(host)) throw new AppError("CALLBACK_REFUSED", [host, host]);
  }

  /**
   * The addresses to connect to, looked up once: who checks a name and connects to it afterwards may be told another
   * address then. Fails with CALLBACK_REFUSED if any address of the host is one that is not allowed.
   */
  async addressesOf(hostname: string): Promise<HostAddress[]> {
    const host = unbracketed(hostname);
    let addresses: string[];
    try {
      addresses = isIP(host) ? [host] : (await this.#lookUp(host, { all: true })).map(({ address }) => address);
    } catch (e) {
      throw new AppError("CALLBACK_FAILED", [host, messageOf(e)], { cause: e });
    }
    const refused = addresses.find((address) => !this.allows(address));
    if (refused !== undefined) throw new AppError("CALLBACK_REFUSED", [host, refused]);
    return addresses.map((address) => ({ address, family: isIPv4(address) ? 4 : 6 }));
  }
}

export interface HostAddress {
  readonly address: string;
  readonly family: 4 | 6;
}

/** A URL has IPv6 addresses in brackets. */
export function unbracketed(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, "$1");
}

/** Of `ADDRESS` and `ADDRESS/PREFIX`. */
function listOf(subnets: readonly string[]): BlockList {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [address = "", prefix] = subnet.split("/");
    const family = isIPv4(address) ? "ipv4" : "ipv6";
    list.addSubnet(address, prefix === undefined ? (family === "ipv4" ? 32 : 128) : Number(prefix), family);
  }
  return list;
}
