import { isIPv4 } from "node:net";
import { AppError } from "./errors.ts";

/** An IPv4 subnet; `base` is its first address as an unsigned 32-bit number. */
export interface Subnet {
  readonly base: number;
  readonly prefix: number;
}

/** Parses `a.b.c.d/n`, n from 8 to 29 (a bridge, some functions and the broadcast address). Throws CONFIG. */
export function parseSubnet(text: string): Subnet {
  const [, address = "", prefixText] = /^([\d.]+)\/(\d{1,2})$/.exec(text) ?? [];
  const prefix = Number(prefixText);
  if (!isIPv4(address) || !(prefix >= 8 && prefix <= 29))
    throw new AppError("CONFIG", [`"${text}" is no IPv4 subnet such as 10.62.0.0/16, with a prefix from 8 to 29`]);
  const number = toNumber(address);
  const base = (number & (-1 << (32 - prefix))) >>> 0;
  if (base !== number)
    throw new AppError("CONFIG", [`"${text}" is no IPv4 subnet: its first address is ${toText(base)}`]);
  return { base, prefix };
}

/** The host's own address in the subnet: the first after the network's. */
export function hostAddress(subnet: Subnet): string {
  return toText(subnet.base + 1);
}

/** A MAC for the bridge that is the same after every start: locally administered, with the host's address in it. */
export function macOf(subnet: Subnet): string {
  const bytes = toText(subnet.base + 1)
    .split(".")
    .map((part) => Number(part).toString(16).padStart(2, "0"));
  return `0a:58:${bytes.join(":")}`;
}

function toNumber(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

function toText(number: number): string {
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join(".");
}

/** Whether the IPv4 address is in the subnet; an IPv4 address in IPv6 form counts as what it stands for. */
export function contains(subnet: Subnet, address: string): boolean {
  const text = address.replace(/^::ffff:/, "");
  return isIPv4(text) && (toNumber(text) & (-1 << (32 - subnet.prefix))) >>> 0 === subnet.base;
}
