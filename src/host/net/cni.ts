import { constants } from "node:fs";
import { access, mkdir, readdir, readFile, rename, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, messageOf, systemCode } from "../../base/errors.ts";
import { failpoint } from "../../base/failpoints.ts";
import { KeyedQueue } from "../../base/keyed-queue.ts";
import { installationRoot } from "../../installation.ts";
import { execute } from "../exec.ts";
import { isLive, loopbackUp, path as netnsPath } from "./netns.ts";

/** Where distributions and the upstream archive put the plugins; the first directory that has `bridge` wins. */
export const defaultPluginDirs: readonly string[] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/** The template of the network's configuration, a file an operator may read and extend. */
const templateFile = join(installationRoot, "cni/napd.conflist");

/** The one interface that a function has besides `lo`. */
const ifname = "eth0";

/** Milliseconds for one plugin run: 10 ms when quiet, some hundred under load; a hung one must not hang a deploy. */
const pluginTimeoutMs = 30_000;

export interface CniSettings {
  /** The daemon's state directory; results and leases are kept in its `cni` directory. */
  readonly stateDir: string;
  /** Bridge interface, at most 15 characters; also the network's name. */
  readonly bridge: string;
  /** IPv4 subnet, such as `10.62.0.0/16`. */
  readonly subnet: string;
  /** The bridge's address in it, such as `10.62.0.1`. */
  readonly gateway: string;
  /** Bytes per packet on the functions' interfaces. @default 1500 */
  readonly mtu?: number;
  /** Directories to look for plugins in. @default defaultPluginDirs */
  readonly pluginDirs?: readonly string[];
}

/** The address of a container and the namespace it lives in. */
export interface Attachment {
  /** IPv4 address without prefix length. */
  readonly address: string;
  /** Name of the network namespace. */
  readonly netns: string;
}

interface Plugin {
  type: string;
  [key: string]: unknown;
}

interface Conflist {
  cniVersion: string;
  name: string;
  plugins: Plugin[];
}

/** The parts of a CNI 0.4.0 ADD result that we read; all of it is kept and handed back at DEL. */
interface AddResult {
  interfaces?: { name: string; sandbox?: string }[];
  ips?: { address: string; interface?: number }[];
}

/** One file per container: what ADD was asked and what it answered. */
interface Stored extends Attachment {
  readonly id: string;
  readonly conflist: Conflist;
  readonly result: AddResult;
}

/**
 * Attaches containers to the bridge by running CNI plugins, as the CNI specification (0.4.0, which every plugin
 * since 2019 speaks) lays down for a runtime.
 *
 * The plugins keep no record of a result, and IPAM's is by address and not by container. So every ADD result is
 * stored in `<stateDir>/cni/<id>.json`: that file is the truth about who has which address, also after a restart.
 *
 * Two rules protect a live container (contracts/containerd.md §6): an id that has a stored result is never ADDed
 * again, and such an ADD is never rolled back with DEL. Either would free the address of a running container.
 */
export class Cni {
  readonly #dir: string;
  readonly #conflist: Conflist;
  readonly #pluginDirs: readonly string[];
  readonly #stored: Map<string, Stored>;
  /** ADD and DEL of one container must not overlap (CNI specification, "lifecycle & ordering"). */
  readonly #order = new KeyedQueue<string>();
  /** Ids with an ADD or DEL under way, for `sweep`. */
  readonly #busy = new Map<string, number>();

  private constructor(dir: string, conflist: Conflist, dirs: readonly string[], stored: Map<string, Stored>) {
    this.#dir = dir;
    this.#conflist = conflist;
    this.#pluginDirs = dirs;
    this.#stored = stored;
  }

  /**
   * Reads the stored results and looks for the plugins. Throws HOST_LACKS when a plugin is missing. A result file
   * that cannot be read is dropped: its address comes back with the next `sweep`.
   */
  static async open(settings: CniSettings): Promise<Cni> {
    const dir = join(settings.stateDir, "cni");
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const dataDir = join(dir, "ipam");
    const template: unknown = JSON.parse(await readFile(templateFile, "utf8"));
    const values = { ...settings, mtu: settings.mtu ?? 1500, name: settings.bridge, dataDir };
    const conflist = substitute(template, values) as Conflist;
    const dirs = settings.pluginDirs ?? defaultPluginDirs;
    for (const type of pluginTypes(conflist)) await findPlugin(type, dirs);
    return new Cni(dir, conflist, dirs, await readStored(dir));
  }

  /** What is attached, by container id. */
  stored(): Map<string, Attachment> {
    return new Map([...this.#stored].map(([id, { address, netns }]) => [id, { address, netns }]));
  }

  /** Whether the container's interface is a port of the bridge: it is none any more when somebody removed the bridge. */
  async isPlugged(id: string): Promise<boolean> {
    const port = portOf(this.#stored.get(id)?.result ?? {}, this.#bridge);
    return port !== undefined && (await exists(`/sys/class/net/${this.#bridge}/brif/${port}`));
  }

  /**
   * Gives the container `id` an interface in the namespace `netns`, with `lo` and `eth0` up, and resolves with its
   * address. Idempotent: an id that is attached to this very namespace gets the address it has; one that is recorded
   * with another or a dead namespace is released first. On failure and on abort nothing stays behind.
   * Throws HOST_COMMAND with the plugin's own words.
   */
  add(id: string, netns: string, signal?: AbortSignal): Promise<{ address: string }> {
    return this.#exclusively(id, async () => {
      const before = this.#stored.get(id);
      if (before && before.netns === netns && (await isLive(netnsPath(netns)))) return { address: before.address };
      if (before) await this.#release(id, before.netns);
      signal?.throwIfAborted();

      const up = loopbackUp(netns, signal).then(
        () => undefined,
        (e: unknown) => e, // looked at below: meanwhile it must not count as an unhandled rejection
      );
      try {
        const result = await this.#runAdd(id, netns, signal);
        const address = addressOf(result);
        await isolate(result, this.#bridge);
        const failure = await up;
        if (failure !== undefined) throw failure;
        failpoint("cni.before-store");
        await this.#store({ id, netns, address, conflist: this.#conflist, result });
        return { address };
      } catch (e) {
        // There was no stored result (see the class), so whatever exists under this id is of this very attempt.
        await up; // nothing of it may run on
        await this.#release(id, netns).catch(() => {});
        throw e;
      }
    });
  }

  /** Releases address and interface. Idempotent; the namespace may be gone already. Throws HOST_COMMAND. */
  del(id: string, netns: string): Promise<void> {
    return this.#exclusively(id, () => this.#release(id, netns));
  }

  /**
   * Releases everything whose container is not in `alive`: stored results first, then address files of the IPAM
   * plugin without a result, which are left by a kill in the middle of an ADD. Ids with an ADD or DEL under way are
   * left alone. Resolves with the ids released.
   */
  async sweep(alive: ReadonlySet<string>): Promise<string[]> {
    const isLeaked = (id: string) => !alive.has(id) && !this.#busy.has(id);
    const released = new Set<string>();
    const leaked = [...this.#stored.values()].filter(({ id }) => isLeaked(id));
    // After a reboot that may be every function there was; more plugins at once than this only wait for each other.
    for (let i = 0; i < leaked.length; i += 8) {
      await Promise.all(leaked.slice(i, i + 8).map(({ id, netns }) => this.del(id, netns)));
      for (const { id } of leaked.slice(i, i + 8)) released.add(id);
    }
    const dir = join(this.#dir, "ipam", this.#conflist.name);
    for (const file of await addressFiles(dir)) {
      const id = ownerOf(await readText(join(dir, file)));
      if (!isLeaked(id) || this.#stored.has(id)) continue;
      await removeFile(join(dir, file));
      released.add(id);
    }
    return [...released].filter((id) => id !== "");
  }

  get #bridge(): string {
    return String(this.#conflist.plugins[0]?.bridge ?? this.#conflist.name);
  }

  async #exclusively<V>(id: string, work: () => Promise<V>): Promise<V> {
    checkId(id);
    this.#busy.set(id, (this.#busy.get(id) ?? 0) + 1);
    try {
      return await this.#order.run(id, work);
    } finally {
      const left = this.#busy.get(id)! - 1;
      if (left === 0) this.#busy.delete(id);
      else this.#busy.set(id, left);
    }
  }

  /**
   * ADD runs the plugins in order, each given the result of the one before. An abort waits for the one that runs: killed
   * in the wrong moment, it would leave an address that nobody's name is on yet, and DEL would not find it.
   */
  async #runAdd(id: string, netns: string, signal?: AbortSignal): Promise<AddResult> {
    let prevResult: AddResult | undefined;
    for (const plugin of this.#conflist.plugins) {
      const config = pluginConfig(this.#conflist, plugin, prevResult);
      prevResult = JSON.parse(await this.#exec("ADD", id, netnsPath(netns), config)) as AddResult;
      signal?.throwIfAborted();
    }
    return prevResult ?? {};
  }

  /** DEL runs them in reverse order, each given the result of ADD, with the configuration that ADD had. */
  async #release(id: string, netns: string): Promise<void> {
    const stored = this.#stored.get(id);
    const { conflist, result } = stored ?? { conflist: this.#conflist, result: undefined };
    // "Plugins should generally complete a DEL action without error even if some resources are missing", and an
    // empty CNI_NETNS stands for a namespace that is gone.
    const sandbox = (await isLive(netnsPath(netns))) ? netnsPath(netns) : "";
    // after a reboot nothing of any container is there: no need to run a program for each
    if (!stored && sandbox === "" && !(await this.#hasAddress(id))) return;
    for (const plugin of conflist.plugins.toReversed())
      await this.#exec("DEL", id, sandbox, pluginConfig(conflist, plugin, result));
    await removeFile(this.#fileOf(id));
    this.#stored.delete(id);
  }

  /** Whether IPAM holds an address for it: an ADD that was killed leaves that and no result. */
  async #hasAddress(id: string): Promise<boolean> {
    const dir = join(this.#dir, "ipam", this.#conflist.name);
    for (const file of await addressFiles(dir)) if (ownerOf(await readText(join(dir, file))) === id) return true;
    return false;
  }

  async #exec(verb: "ADD" | "DEL", id: string, netns: string, config: Plugin): Promise<string> {
    const plugin = await findPlugin(config.type, this.#pluginDirs);
    const env = {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: id,
      CNI_NETNS: netns,
      CNI_IFNAME: ifname,
      CNI_PATH: this.#pluginDirs.join(":"),
    };
    const input = JSON.stringify(config);
    const { code, stdout, stderr } = await execute(plugin, [], { env, input, timeoutMs: pluginTimeoutMs });
    if (code === 0) return stdout;
    throw new AppError("HOST_COMMAND", [`CNI ${verb} by ${plugin} for ${id}`, pluginError(stdout) || stderr.trim()]);
  }

  /** Atomic: a result is whole or not there. Not fsynced, as interfaces and namespaces do not outlive a power cut. */
  async #store(entry: Stored): Promise<void> {
    const file = this.#fileOf(entry.id);
    await writeFile(`${file}.new`, JSON.stringify(entry), { mode: 0o600 });
    await rename(`${file}.new`, file);
    this.#stored.set(entry.id, entry);
  }

  #fileOf(id: string): string {
    return join(this.#dir, `${id}.json`);
  }
}

/** Replaces every string that is exactly `<key>` by the value, keeping its type. Unknown keys are our mistake. */
export function substitute(value: unknown, values: Readonly<Record<string, unknown>>): unknown {
  if (typeof value === "string") {
    const key = /^<(\w+)>$/.exec(value)?.[1];
    if (key === undefined) return value;
    if (values[key] === undefined) throw new AppError("CONFIG", [`cni/napd.conflist: no setting is called ${key}`]);
    return values[key];
  }
  if (Array.isArray(value)) return value.map((item) => substitute(item, values));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, substitute(item, values)]));
}

/** What a plugin reads on standard input: its own entry with the network's name and version put in. */
function pluginConfig(list: Conflist, plugin: Plugin, prevResult: AddResult | undefined): Plugin {
  return { ...plugin, cniVersion: list.cniVersion, name: list.name, ...(prevResult && { prevResult }) };
}

/** The container's IPv4 address in an ADD result, without its prefix length. */
export function addressOf(result: AddResult): string {
  const cidr = result.ips?.map((ip) => ip.address).find((address) => !address.includes(":"));
  if (cidr === undefined) throw new AppError("HOST_COMMAND", ["CNI ADD", "its result has no IPv4 address"]);
  return cidr.split("/", 1)[0]!;
}

/** The container id in an IPAM address file: its first line, the interface is on the second. */
function ownerOf(text: string): string {
  return text.split(/\r?\n/, 1)[0]!.trim();
}

/**
 * Isolates the container's port: an isolated port talks to the bridge itself but to no other isolated one, so
 * functions cannot reach each other below IP, where no firewall rule looks (ARP, IPv6 link-local, broadcasts).
 * A write to sysfs takes 0.1 ms; `ip link set … type bridge_slave isolated on` is the same at the price of a program.
 * Done here and not with the plugin's own `portIsolation`, which needs plugins 1.6.
 */
async function isolate(result: AddResult, bridge: string): Promise<void> {
  const port = portOf(result, bridge);
  if (port === undefined) throw new AppError("HOST_COMMAND", ["CNI ADD", "its result names no interface on the host"]);
  try {
    await writeFile(`/sys/class/net/${port}/brport/isolated`, "1");
  } catch (e) {
    throw new AppError("HOST_COMMAND", [`isolating bridge port ${port}`, messageOf(e)], { cause: e });
  }
}

/** The host's end of the pair: the bridge's port. */
function portOf(result: AddResult, bridge: string): string | undefined {
  return result.interfaces?.find((link) => !link.sandbox && link.name !== bridge)?.name;
}

/** What a failing plugin says on standard output: {"code":11,"msg":"…","details":"…"} (CNI specification, "Error"). */
function pluginError(stdout: string): string {
  try {
    const { code, msg, details } = JSON.parse(stdout) as { code?: number; msg?: string; details?: string };
    return [`${msg} (code ${code})`, details].filter(Boolean).join(": ");
  } catch {
    return stdout.trim().slice(0, 500);
  }
}

/** Every plugin that the configuration names, those for addresses included. */
function pluginTypes(list: Conflist): string[] {
  return list.plugins.flatMap((plugin) => [plugin.type, (plugin.ipam as Plugin | undefined)?.type ?? plugin.type]);
}

async function findPlugin(type: string, dirs: readonly string[]): Promise<string> {
  for (const dir of dirs) {
    const file = join(dir, type);
    if (await exists(file, constants.X_OK)) return file;
  }
  throw new AppError("HOST_LACKS", [
    `the CNI plugin "${type}" (looked in ${dirs.join(", ")})`,
    "install the package containernetworking-plugins, or name their directory with setting network.plugins",
  ]);
}

async function exists(file: string, mode?: number): Promise<boolean> {
  return access(file, mode).then(
    () => true,
    () => false,
  );
}

async function readStored(dir: string): Promise<Map<string, Stored>> {
  const found = new Map<string, Stored>();
  for (const file of (await readdir(dir)).filter((name) => /\.json(\.new)?$/.test(name))) {
    const entry = parseStored(await readText(join(dir, file)));
    if (entry && `${entry.id}.json` === file) found.set(entry.id, entry);
    else await removeFile(join(dir, file));
  }
  return found;
}

function parseStored(text: string): Stored | undefined {
  try {
    const entry = JSON.parse(text) as Partial<Stored>;
    const whole = [entry.id, entry.address, entry.netns].every((part) => typeof part === "string");
    return whole && Array.isArray(entry.conflist?.plugins) && entry.result ? (entry as Stored) : undefined;
  } catch {
    return undefined;
  }
}

/** Files of host-local are named by their address; beside them are `lock` and `last_reserved_ip.0`. */
async function addressFiles(dir: string): Promise<string[]> {
  try {
    return (await readdir(dir)).filter((name) => /^\d+\.\d+\.\d+\.\d+$/.test(name));
  } catch (e) {
    if (systemCode(e) === "ENOENT") return [];
    throw e;
  }
}

async function readText(file: string): Promise<string> {
  return readFile(file, "utf8").catch((e: unknown) => {
    if (systemCode(e) === "ENOENT") return "";
    throw e;
  });
}

async function removeFile(file: string): Promise<void> {
  await unlink(file).catch((e: unknown) => {
    if (systemCode(e) !== "ENOENT") throw e;
  });
}

/** Ids become file names and go to programs. */
function checkId(id: string): void {
  if (!/^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$/.test(id) || id.length > 200)
    throw new AppError("INTERNAL", [`"${id}" is no container id`]);
}
