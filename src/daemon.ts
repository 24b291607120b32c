import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { openApi } from "./admin/api.ts";
import { systemClock } from "./base/clock.ts";
import { AppError } from "./base/errors.ts";
import type { Logger } from "./base/log.ts";
import type { Config } from "./config.ts";
import { Functions } from "./functions/functions.ts";
import { Rollout, type Version } from "./functions/rollout.ts";
import type { Table } from "./functions/table.ts";
import { openGateway } from "./gateway/server.ts";
import { hostBackend } from "./host/backend.ts";
import { openFreezer, removeParentGroups } from "./host/cgroup.ts";
import { type Containerd, openContainerd } from "./host/containerd/client.ts";
import { Images } from "./host/image/images.ts";
import { ensureBridge, teardownBridge, uplinkMtu } from "./host/net/bridge.ts";
import { Cni } from "./host/net/cni.ts";
import { startDns } from "./host/net/dns.ts";
import { ensureFirewall, teardownFirewall } from "./host/net/firewall.ts";
import { hostsText, openHostResolvers, resolvConfText } from "./host/net/resolv.ts";
import { lookupUser } from "./host/oci/user.ts";
import { openInvoke } from "./invoke/invoke.ts";
import { openCredentials } from "./store/credentials.ts";
import { FunctionStore } from "./store/functions.ts";
import { SecretStore } from "./store/secrets.ts";
import { openState } from "./store/state.ts";

/** A running napd. Disposing it stops it in the reverse order of its start. */
export interface Daemon extends AsyncDisposable {
  readonly port: number;
}

/** Requests under way may go on for so long when napd stops, ms. */
const drainMs = 30_000;

/** Starts everything; reading order is start order. What was opened is closed again when a later step fails. */
export async function startDaemon(config: Config, version: string, log: Logger): Promise<Daemon> {
  const { paths, network } = config;
  const clock = systemClock;
  const namespaces = () => [config.functions.namespace];
  const defaults = { timeoutMs: config.gateway.upstream_timeout, pullPolicy: config.images.pull_policy };
  const removes = config.functions.on_stop === "remove";

  await using up = new AsyncDisposableStack();
  up.use(await claim(paths.run));
  const table: Table = new Map();
  const address = network.subnet.gateway;
  const gateway = up.use(
    await openGateway({
      ...config.gateway.listen,
      bridgeAddress: address,
      defaultNamespace: config.functions.namespace,
      table,
    }),
  );

  const db = openState(paths.data);
  up.defer(() => db.close());
  const store = new FunctionStore<Version>(db);
  const secrets = new SecretStore(join(paths.data, "secrets"));
  const credentials = await openCredentials(join(paths.data, "credentials"));

  const containerd = up.use(
    await openContainerd({ socket: config.containerd.socket, snapshotter: config.containerd.snapshotter }),
  );
  for (const namespace of namespaces()) await containerd.namespaces.ensure(namespace, { openfaas: "true" });

  const mtu = await uplinkMtu();
  await ensureBridge({ name: network.bridge, subnet: network.subnet.cidr, mtu });
  if (removes) up.defer(() => teardownBridge(network.bridge));
  await ensureFirewall({ bridge: network.bridge, subnet: network.subnet.cidr, address, gatewayPort: gateway.port });
  if (removes) up.defer(() => teardownFirewall(network.bridge));
  await writeNetworkFiles(paths.run, address);
  const hostResolvers =
    config.dns.servers.length > 0 ? () => config.dns.servers : await openHostResolvers({ clock, own: [address] });
  const isFunction = (name: string, namespace = config.functions.namespace) => table.has(`${name}.${namespace}`);
  up.use(await startDns({ address, subnet: network.subnet.cidr, isFunction, upstreams: hostResolvers }));

  const cni = await Cni.open({
    stateDir: paths.run,
    bridge: network.bridge,
    subnet: network.subnet.cidr,
    gateway: address,
    mtu,
    pluginDirs: network.plugins,
  });
  const images = up.use(await openImages(config, containerd, log));
  const freezer = openFreezer(clock);
  const settings = {
    runDir: paths.run,
    logsDir: paths.logs,
    bridge: network.bridge,
    cgroupParent: config.cgroup.parent,
    runcRoot: config.containerd.runc_root,
    pidsLimit: config.functions.pids_limit,
  };
  const readSecret = (namespace: string, name: string) => secrets.read(namespace, name);
  const backend = hostBackend({ settings, containerd, images, cni, freezer, clock, log, readSecret, namespaces });

  const { ready_timeout: readyTimeoutMs, grace: graceMs, deploy_wait: deployWaitMs } = config.functions;
  const rollout = new Rollout({ store, backend, table, defaults, readyTimeoutMs, graceMs, clock, log });
  if (removes) up.defer(() => removeParentGroups(config.cgroup.parent));
  if (removes) up.defer(() => rollout.removeAll());
  up.use(rollout);
  await rollout.open();

  const hasSecret = async (namespace: string, name: string) => (await secrets.read(namespace, name)) !== undefined;
  const functions = new Functions({ store, backend, rollout, defaults, deployWaitMs, namespaces, hasSecret, clock });
  const invoke = openInvoke({
    table,
    defaultNamespace: config.functions.namespace,
    thaw: (replica) => backend.thaw(replica),
  });
  const admin = await openApi({
    functions,
    secrets,
    credentials,
    defaultNamespace: config.functions.namespace,
    namespaces,
    version,
    log,
  });
  gateway.serve({ invoke, admin });
  up.defer(() => gateway.drain(drainMs));

  const stack = up.move();
  return { port: gateway.port, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Images as this configuration has them; also for `napd import`, which runs beside the daemon. */
export function openImages(config: Config, containerd: Containerd, log: Logger): Promise<Images> {
  return Images.open({
    containerd,
    registries: config.registries,
    credentialsFile: config.images.credentials || join(config.paths.data, "docker-config.json"),
    runDir: config.paths.run,
    lookupUser,
    log,
  });
}

/**
 * Only one napd may work on a run directory: two would take each other's containers for leftovers. An abstract socket
 * is a lock that the kernel drops when its holder dies, however it dies.
 */
async function claim(runDir: string): Promise<AsyncDisposable> {
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  const lock = createServer();
  await new Promise<void>((resolve, reject) => {
    lock.once("error", (cause) =>
      reject(
        new AppError(
          "CONFIG",
          [`another napd runs with paths.run ${runDir}; stop it, or give this one other paths and another bridge`],
          { cause },
        ),
      ),
    );
    lock.listen(`\0napd:${runDir}`, resolve);
  });
  return { [Symbol.asyncDispose]: () => new Promise((resolve) => lock.close(() => resolve())) };
}

/** Bound into every function; written in place, because running functions hold the inode. */
async function writeNetworkFiles(runDir: string, address: string): Promise<void> {
  await writeFile(join(runDir, "resolv.conf"), resolvConfText(address), { mode: 0o644 });
  await writeFile(join(runDir, "hosts"), hostsText(), { mode: 0o644 });
}
