import { AppError } from "../../base/errors.ts";
import { execute, run } from "../exec.ts";

export interface FirewallSettings {
  readonly bridge: string;
  /** IPv4 subnet of the functions, such as `10.62.0.0/16`. */
  readonly subnet: string;
  /** The bridge's own address: where functions reach DNS and the gateway. */
  readonly address: string;
  /** TCP port of the gateway on that address. */
  readonly gatewayPort: number;
}

/** A chain of ours, the jump to it from a built-in chain, and its rules, both as `iptables-save` words them. */
interface Chain {
  readonly table: "nat" | "mangle" | "filter";
  readonly hook: "POSTROUTING" | "INPUT" | "FORWARD";
  readonly name: string;
  /** What of the built-in chain's packets comes here, such as `-i napd0 `; empty for all. */
  readonly when: string;
  readonly rules: readonly string[];
}

/** Seconds to wait for another program that changes rules at this moment. */
const lockSeconds = "10";

/**
 * All rules of one bridge. They are static: nothing is added per function.
 *
 * What must never pass is dropped in `mangle`, which a packet meets before `filter`: so no ACCEPT of another program,
 * or of a second napd for its own bridge, can let it through. `filter` holds only the ACCEPTs that are needed where
 * Docker or ufw drop by default.
 *
 *     function -> bridge address    DNS and the gateway's port, answers to what the host asked; else dropped
 *     function -> elsewhere         passes, except to link-local addresses (169.254.169.254: a cloud's credentials)
 *                                   and back to its own bridge (another function)
 *     elsewhere -> function         answers only
 *
 * Functions are also kept apart below IP, by port isolation (cni.ts) and a bridge without IPv6 (bridge.ts).
 */
export function chainsOf({ bridge, subnet, address, gatewayPort }: FirewallSettings): Chain[] {
  const answers = "-m conntrack --ctstate RELATED,ESTABLISHED";
  const from = `-i ${bridge}`;
  const services = ["-p udp -m udp --dport 53", "-p tcp -m tcp --dport 53", `-p tcp -m tcp --dport ${gatewayPort}`];
  const allowed = [answers, ...services.map((service) => `-d ${address}/32 ${service}`)];
  const chain = (table: Chain["table"], hook: Chain["hook"], when: string, rules: string[]): Chain => ({
    table,
    hook,
    name: chainName(hook, table, bridge),
    when,
    rules,
  });
  return [
    // Only what leaves by another interface, so that the gateway sees functions by their own addresses.
    chain("nat", "POSTROUTING", "", [`-s ${subnet} ! -o ${bridge} -j MASQUERADE`]),
    chain("mangle", "INPUT", `${from} `, [
      `! -s ${subnet} -j DROP`,
      ...allowed.map((match) => `${match} -j RETURN`),
      "-j DROP",
    ]),
    chain("mangle", "FORWARD", "", [
      `${from} -o ${bridge} -j DROP`,
      `! -s ${subnet} ${from} -j DROP`,
      `-d 169.254.0.0/16 ${from} -j DROP`,
      `-o ${bridge} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP`,
    ]),
    chain(
      "filter",
      "INPUT",
      `${from} `,
      allowed.map((match) => `${match} -j ACCEPT`),
    ),
    chain("filter", "FORWARD", "", [`${from} -j ACCEPT`, `-o ${bridge} ${answers} -j ACCEPT`]),
  ];
}

/** Chain names carry the bridge, so that several napd can share a machine: at most 28 characters, ours take 23. */
function chainName(hook: Chain["hook"], table: Chain["table"], bridge: string): string {
  const letter = { POSTROUTING: "NAT", INPUT: "IN", FORWARD: "FWD" }[hook];
  return `NAPD-${table === "mangle" ? "X" : ""}${letter}-${bridge}`;
}

/**
 * Makes the rules of the bridge what they have to be, with our jumps first in the built-in chains, whatever was there
 * before. Idempotent, and cheap when all is well: then it is one program that only reads.
 * Throws HOST_LACKS without iptables, HOST_COMMAND when the kernel refuses a rule.
 */
export async function ensureFirewall(settings: FirewallSettings): Promise<void> {
  const chains = chainsOf(settings);
  const saved = await save();
  if (isInstalled(chains, saved)) return;
  await restore(installation(chains, saved));
}

/** Removes every rule and chain of the bridge. Idempotent. */
export async function teardownFirewall(bridge: string): Promise<void> {
  const chains = chainsOf({ bridge, subnet: "0.0.0.0/0", address: "0.0.0.0", gatewayPort: 1 });
  const text = removal(chains, await save());
  if (text) await restore(text);
}

/** Whether each chain has exactly its rules and is jumped to once, before anybody else's rules of its hook. */
export function isInstalled(chains: readonly Chain[], saved: string): boolean {
  const tables = parseSaved(saved);
  return chains.every((chain) => {
    const lines = tables.get(chain.table) ?? [];
    const own = lines.filter((line) => line.startsWith(`-A ${chain.name} `));
    const jumps = lines.filter((line) => line.endsWith(` -j ${chain.name}`));
    const hooked = lines.filter((line) => line.startsWith(`-A ${chain.hook} `));
    // Jumps of other napd instances may stand before ours: they let pass what does not concern them.
    const foreign = hooked.findIndex((line) => !/ -j NAPD-\S+$/.test(line));
    const place = hooked.indexOf(`-A ${chain.hook} ${chain.when}-j ${chain.name}`);
    return (
      own.join("\n") === chain.rules.map((rule) => `-A ${chain.name} ${rule}`).join("\n") &&
      jumps.length === 1 &&
      place >= 0 &&
      (foreign < 0 || place < foreign)
    );
  });
}

/**
 * The text for `iptables-restore --noflush`, which applies a table as a whole or not at all: there is no moment
 * without rules. Declaring a chain of ours empties it if it exists.
 */
export function installation(chains: readonly Chain[], saved: string): string {
  return perTable(chains, saved, ({ hook, name, when, rules }, jumps) => ({
    declare: [`:${name} - [0:0]`],
    apply: [
      ...rules.map((rule) => `-A ${name} ${rule}`),
      ...jumps.map((jump) => `-D ${jump}`),
      `-I ${hook} 1 ${when}-j ${name}`,
    ],
  }));
}

/** The text that removes them; empty when there is nothing to remove. */
export function removal(chains: readonly Chain[], saved: string): string {
  const tables = parseSaved(saved);
  const present = chains.filter(({ table, name }) => tables.get(table)?.some((line) => line.startsWith(`:${name} `)));
  return perTable(present, saved, ({ name }, jumps) => ({
    declare: [`:${name} - [0:0]`],
    apply: [...jumps.map((jump) => `-D ${jump}`), `-X ${name}`],
  }));
}

type Lines = { declare: string[]; apply: string[] };

function perTable(chains: readonly Chain[], saved: string, lines: (chain: Chain, jumps: string[]) => Lines): string {
  const tables = parseSaved(saved);
  const blocks = [...new Set(chains.map(({ table }) => table))].map((table) => {
    const parts = chains
      .filter((chain) => chain.table === table)
      .map((chain) =>
        lines(
          chain,
          // As they stand in the dump, without "-A": an operator may have put conditions on the jump.
          (tables.get(table) ?? [])
            .filter((line) => line.startsWith("-A ") && line.endsWith(` -j ${chain.name}`))
            .map((line) => line.slice(3)),
        ),
      );
    const body = [...parts.flatMap((part) => part.declare), ...parts.flatMap((part) => part.apply)];
    return `*${table}\n${body.join("\n")}\nCOMMIT\n`;
  });
  return blocks.join("");
}

/** The lines of each table in the output of `iptables-save`. */
function parseSaved(text: string): Map<string, string[]> {
  const tables = new Map<string, string[]>();
  let lines: string[] = [];
  for (const line of text.split("\n").map((raw) => raw.trim())) {
    if (line.startsWith("*")) {
      lines = [];
      tables.set(line.slice(1), lines);
    } else if (line.startsWith(":") || line.startsWith("-A ")) lines.push(line);
  }
  return tables;
}

async function save(): Promise<string> {
  try {
    const { code, stdout, stderr } = await execute("iptables-save", []);
    if (code === 0) return stdout;
    throw new AppError("HOST_COMMAND", ["iptables-save", stderr.trim()]);
  } catch (e) {
    throw missing(e);
  }
}

async function restore(input: string): Promise<void> {
  await run("iptables-restore", ["--noflush", "-w", lockSeconds], { input, timeoutMs: 20_000 });
}

function missing(e: unknown): unknown {
  const cause = e instanceof AppError ? e.cause : undefined;
  if (!(cause instanceof Error) || !("code" in cause) || cause.code !== "ENOENT") return e;
  return new AppError("HOST_LACKS", ["iptables", "install the package iptables"], { cause });
}
