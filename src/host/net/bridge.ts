import { access, readFile, writeFile } from "node:fs/promises";
import { AppError, messageOf, systemCode } from "../../base/errors.ts";
import { hostAddress, macOf, parseSubnet } from "../../base/subnet.ts";
import { execute, run } from "../exec.ts";

export interface BridgeSettings {
  /** Interface name, at most 15 characters. */
  readonly name: string;
  /** IPv4 subnet of the functions, such as `10.62.0.0/16`. */
  readonly subnet: string;
  /** Bytes per packet. @default 1500 */
  readonly mtu?: number;
}

/** One entry of `ip -json address show`. */
interface AddressEntry {
  ifname?: string;
  flags?: string[];
  mtu?: number;
  address?: string;
  addr_info?: { family: string; local: string; prefixlen: number }[];
}

/**
 * Makes the bridge what it has to be: there, with the subnet's first address and no other, up, with a fixed MAC,
 * without IPv6; and lets the kernel forward IPv4. Idempotent, and repairs what somebody has changed. To be called
 * before anything listens on the address: the CNI plugin would make the bridge only with the first container.
 * Resolves with the address. Throws HOST_COMMAND, or CONFIG when the name belongs to another kind of interface.
 */
export async function ensureBridge(settings: BridgeSettings, signal?: AbortSignal): Promise<string> {
  const { name } = settings;
  const found = await inspect(name, signal);
  const commands = repairs(settings, found);
  if (commands.length > 0) await run("ip", ["-batch", "-"], { input: `${commands.join("\n")}\n`, signal });
  // Link-local IPv6 would be a second way to the host's services, past the IPv4 rules. There is nothing to switch off
  // where the kernel has no IPv6.
  await sysctl(`net/ipv6/conf/${name}/disable_ipv6`, "1");
  await sysctl("net/ipv4/ip_forward", "1");
  return hostAddress(parseSubnet(settings.subnet));
}

/**
 * Removes the bridge; containers on it lose their network. Removing what is not there is no error. Forwarding stays
 * on, as it belongs to the machine and others may rely on it.
 */
export async function teardownBridge(name: string): Promise<void> {
  if (await exists(name)) await run("ip", ["link", "del", name, "type", "bridge"]);
}

/**
 * The MTU of the interface that the default route leaves by, 1500 when there is none. Clouds and tunnels often have
 * less, and functions with a larger one would meet connections that hang.
 */
export async function uplinkMtu(): Promise<number> {
  const link = defaultInterface(await readFile("/proc/net/route", "utf8"));
  const mtu = link ? Number(await readFile(`/sys/class/net/${link}/mtu`, "utf8").catch(() => "")) : 0;
  return mtu >= 576 && mtu <= 9000 ? mtu : 1500; // 576: what every IPv4 host must take (RFC 791)
}

/** The interface of the default route with the lowest metric, in the text of /proc/net/route. */
export function defaultInterface(text: string): string | undefined {
  const routes = text
    .split("\n")
    .slice(1)
    .map((row) => row.split("\t"))
    .filter((cells) => cells[1] === "00000000" && cells[7] === "00000000"); // destination and mask 0.0.0.0
  return routes.toSorted((a, b) => Number(a[6]) - Number(b[6]))[0]?.[0];
}

/** The `ip -batch` lines that turn what was found into what is wanted; none when all is well. */
export function repairs(settings: BridgeSettings, found: AddressEntry | undefined): string[] {
  const { name, mtu = 1500 } = settings;
  const subnet = parseSubnet(settings.subnet);
  const wanted = `${hostAddress(subnet)}/${subnet.prefix}`;
  // A bridge without a fixed MAC takes the lowest of its ports: every new function could change it, and the others
  // would send to the old one until their ARP entry expires.
  const mac = macOf(subnet);
  if (!found)
    return [
      `link add name ${name} address ${mac} mtu ${mtu} type bridge`,
      `addr add ${wanted} dev ${name}`,
      `link set dev ${name} up`,
    ];
  const addresses = (found.addr_info ?? []).filter((a) => a.family === "inet").map((a) => `${a.local}/${a.prefixlen}`);
  return [
    ...addresses.filter((address) => address !== wanted).map((address) => `addr del ${address} dev ${name}`),
    ...(addresses.includes(wanted) ? [] : [`addr add ${wanted} dev ${name}`]),
    ...(found.address === mac ? [] : [`link set dev ${name} address ${mac}`]),
    ...(found.mtu === mtu ? [] : [`link set dev ${name} mtu ${mtu}`]),
    ...(found.flags?.includes("UP") ? [] : [`link set dev ${name} up`]),
  ];
}

async function inspect(name: string, signal?: AbortSignal): Promise<AddressEntry | undefined> {
  if (!(await exists(name))) return undefined;
  const isBridge = await access(`/sys/class/net/${name}/bridge`).then(
    () => true,
    () => false,
  );
  if (!isBridge)
    throw new AppError("CONFIG", [`interface ${name} exists and is no bridge; change setting network.bridge`]);
  const { code, stdout } = await execute("ip", ["-json", "address", "show", "dev", name], { signal });
  if (code !== 0) return undefined; // removed in this very moment
  return (JSON.parse(stdout) as AddressEntry[]).find((entry) => entry.ifname === name);
}

async function exists(name: string): Promise<boolean> {
  return access(`/sys/class/net/${name}`).then(
    () => true,
    () => false,
  );
}

/** Writes a kernel setting if it differs; one that this kernel does not have is left out. */
async function sysctl(key: string, value: string): Promise<void> {
  const file = `/proc/sys/${key}`;
  try {
    if ((await readFile(file, "utf8")).trim() !== value) await writeFile(file, value);
  } catch (e) {
    if (systemCode(e) === "ENOENT") return;
    throw new AppError("HOST_COMMAND", [`setting ${key.replaceAll("/", ".")} to ${value}`, messageOf(e)], { cause: e });
  }
}
