import { lookup } from "node:dns/promises";
import { BlockList, isIP, isIPv4 } from "node:net";
import { AppError, messageOf } from "../base/errors.ts";

/** Nobody's business from outside: this machine, its links, its metadata service, and whoever listens to all. */
const internal: readonly string[] = [
  ...["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"],
  // NAT64 and 6to4 stand for IPv4 addresses that nobody would look at
  ...["::/128", "::1/128", "fe80::/10", "ff00::/8", "64:ff9b::/96", "2002::/16"],
];

/**
 * Which addresses callbacks may go to: anybody who can call a function can name one, so none that only this machine
 * can reach. `own`: further subnets that are refused; `allowed`: subnets that an administrator has opened.
 */
export class Guard {
  readonly #refused: BlockList;
  readonly #allowed: BlockList;

  constructor(own: readonly string[], allowed: readonly string[]) {
    this.#refused = listOf([...internal, ...own]);
    this.#allowed = listOf(allowed);
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
   * The address to connect to, looked up once: who checks a name and connects to it afterwards may be told another
   * address then. Fails with CALLBACK_REFUSED if any address of the host is one that is not allowed.
   */
  async addressOf(hostname: string): Promise<string> {
    const host = unbracketed(hostname);
    let addresses: string[];
    try {
      addresses = isIP(host) ? [host] : (await lookup(host, { all: true })).map(({ address }) => address);
    } catch (e) {
      throw new AppError("CALLBACK_FAILED", [host, messageOf(e)], { cause: e });
    }
    const refused = addresses.find((address) => !this.allows(address));
    if (refused !== undefined) throw new AppError("CALLBACK_REFUSED", [host, refused]);
    return addresses[0]!;
  }
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
