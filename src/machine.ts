import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "./base/clock.ts";
import type { Logger } from "./base/log.ts";
import type { Config } from "./config.ts";
import type { Backend } from "./functions/backend.ts";
import type { UsedImage } from "./functions/images-in-use.ts";
import { hostBackend } from "./host/backend.ts";
import { removeParentGroups } from "./host/cgroup.ts";
import { type Containerd, openContainerd } from "./host/containerd/client.ts";
import { openFreezer } from "./host/freezer.ts";
import { Disk } from "./host/image/disk.ts";
import { Images } from "./host/image/images.ts";
import type { KeeperOptions } from "./host/image/keeper.ts";
import { ensureNamespaces } from "./host/namespaces.ts";
import { ensureBridge, teardownBridge, uplinkMtu } from "./host/net/bridge.ts";
import { Cni } from "./host/net/cni.ts";
import { startDns } from "./host/net/dns.ts";
import { ensureFirewall, teardownFirewall } from "./host/net/firewall.ts";
import { hostsText, openHostResolvers, resolvConfText } from "./host/net/resolv.ts";
import { lookupUser } from "./host/oci/user.ts";
import { HolePuncher } from "./host/punch.ts";
import { SecretCopies } from "./host/secrets.ts";
import { installationRoot } from "./installation.ts";
import { liveSettings } from "./live.ts";
import { Logs } from "./logs/logs.ts";

/** What scripts/build-watchdog.ts makes. */
const ownWatchdog = join(installationRoot, `dist/watchdog-linux-${process.arch}`);

/** What the host needs from the parts above it. */
export interface HostNeeds {
  gatewayPort: number;
  namespaces: () => readonly string[];
  isFunction: (name: string, namespace?: string) => boolean;
  readSecret: (namespace: string, name: string) => Promise<Buffer | undefined>;
  usedImages: () => readonly UsedImage[];
  clock: Clock;
  log: Logger;
}

export interface OpenHost extends AsyncDisposable {
  readonly backend: Backend;
  /** Whether there is a connection to containerd. */
  isConnected(): boolean;
  /** From now on registries are reached so. */
  useRegistries(registries: Config["registries"]): void;
}

/** This machine as a backend: containerd, network, images. With `functions.on_stop = remove` the network goes at the end. */
export async function openHost(config: Config, needs: HostNeeds, live = liveSettings(config)): Promise<OpenHost> {
  const { paths, network } = config;
  const { clock, log, namespaces } = needs;
  const removes = config.functions.on_stop === "remove";
  await using up = new AsyncDisposableStack();
  const containerd = up.use(
    await openContainerd({ socket: config.containerd.socket, snapshotter: config.containerd.snapshotter }),
  );
  await ensureNamespaces(containerd, network.bridge, namespaces());
  if (removes) up.defer(() => removeParentGroups(config.cgroup.parent));

  const mtu = await uplinkMtu();
  const address = await ensureBridge({ name: network.bridge, subnet: network.subnet, mtu });
  if (removes) up.defer(() => teardownBridge(network.bridge));
  const { gatewayPort, isFunction } = needs;
  await ensureFirewall({ bridge: network.bridge, subnet: network.subnet, address, gatewayPort });
  if (removes) up.defer(() => teardownFirewall(network.bridge));
  await writeNetworkFiles(paths.run, address);
  const configured = config.dns.servers;
  const upstreams = configured.length > 0 ? () => configured : await openHostResolvers({ clock, own: [address] });
  up.use(await startDns({ address, subnet: network.subnet, isFunction, upstreams }));
  const cni = await Cni.open({
    stateDir: paths.run,
    bridge: network.bridge,
    subnet: network.subnet,
    gateway: address,
    mtu,
    pluginDirs: network.plugins,
  });

  const disk = new Disk({
    imageDirs: await containerd.server.imageRoots(config.containerd.snapshotter),
    dataDir: paths.data,
    reserve: config.images.disk_reserve,
  });
  const keeper = Object.assign(live.keeper, { disk, namespaces, used: needs.usedImages });
  const images = up.use(await openImages(config, containerd, log, keeper));
  up.use(images.keeper.start());
  const settings = Object.assign(live.host, {
    runDir: paths.run,
    bridge: network.bridge,
    cgroupParent: config.cgroup.parent,
    runcRoot: config.containerd.runc_root,
    uploadsDir: join(paths.data, "uploads"),
    watchdogDir: paths.watchdog || ownWatchdog,
  });
  const secrets = new SecretCopies(paths.run, needs.readSecret);
  const puncher = up.use(new HolePuncher());
  const punch = (file: string, length: number) => puncher.punch(file, length);
  const logs = up.use(await Logs.open(Object.assign(live.logs, { dir: paths.logs, punch, clock, log })));
  const { freezer: by, page_out } = config.scale;
  const freezer = openFreezer({ tasks: containerd.tasks, by, pageOut: page_out === "on", clock, log });
  const backend = hostBackend({ settings, containerd, images, cni, logs, freezer, clock, log, secrets, namespaces });
  const stack = up.move();
  const useRegistries = (registries: Config["registries"]) => images.useRegistries(registries);
  const isConnected = () => containerd.channel.isConnected;
  return { backend, isConnected, useRegistries, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Logins of registries. */
export function loginsFile(config: Config): string {
  return config.images.credentials || join(config.paths.data, "docker-config.json");
}

/** Images as this configuration has them; without a keeper for `napd import`, which runs beside the daemon. */
export function openImages(
  config: Config,
  containerd: Containerd,
  log: Logger,
  keeper?: KeeperOptions,
): Promise<Images> {
  return Images.open({
    containerd,
    registries: config.registries,
    credentialsFile: loginsFile(config),
    runDir: config.paths.run,
    lookupUser,
    log,
    ...(keeper && { keeper }),
  });
}

/** Bound into every function; written in place, because running functions hold the inode. */
async function writeNetworkFiles(runDir: string, address: string): Promise<void> {
  await writeFile(join(runDir, "resolv.conf"), resolvConfText(address), { mode: 0o644 });
  await writeFile(join(runDir, "hosts"), hostsText(), { mode: 0o644 });
}
