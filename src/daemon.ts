import { mkdir, realpath } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { openApi } from "./admin/api.ts";
import { systemClock } from "./base/clock.ts";
import { AppError } from "./base/errors.ts";
import type { Logger } from "./base/log.ts";
import { keyOf, splitAddress } from "./base/names.ts";
import { hostAddress, parseSubnet } from "./base/subnet.ts";
import type { Config } from "./config.ts";
import { durationBounds } from "./functions/call-stats.ts";
import { Functions } from "./functions/functions.ts";
import { ImagesInUse } from "./functions/images-in-use.ts";
import type { Managed, Version } from "./functions/managed.ts";
import { Namespaces } from "./functions/namespaces.ts";
import { Rollout } from "./functions/rollout.ts";
import { Routes } from "./functions/routes.ts";
import { Secrets } from "./functions/secrets.ts";
import { SleepStats, waitBounds } from "./functions/sleep-stats.ts";
import type { Table } from "./functions/table.ts";
import { Usage } from "./functions/usage.ts";
import { Certificate } from "./gateway/certificate.ts";
import type { ListenerOptions } from "./gateway/listener.ts";
import { openGateway } from "./gateway/server.ts";
import { openInternalCalls } from "./invoke/internal.ts";
import { openInvoke } from "./invoke/invoke.ts";
import { liveSettings, update } from "./live.ts";
import { openHost } from "./machine.ts";
import { openMetrics } from "./metrics/registry.ts";
import { openMetricsServer } from "./metrics/server.ts";
import { Guard } from "./queue/guard.ts";
import { openQueueStore } from "./queue/open.ts";
import { type FunctionLimits, Queue } from "./queue/queue.ts";
import { Results } from "./queue/results.ts";
import type { Release } from "./release.ts";
import { Scaler } from "./scale/scaler.ts";
import { type ListenAddress, settings } from "./settings.ts";
import { openCredentials } from "./store/credentials.ts";
import { CronStore } from "./store/cron.ts";
import { FunctionStore } from "./store/functions.ts";
import { NamespaceStore } from "./store/namespaces.ts";
import { finishRestore } from "./store/restore.ts";
import { SecretStore } from "./store/secrets.ts";
import { openState } from "./store/state.ts";
import type { InheritedSocket } from "./systemd/sockets.ts";
import { Cron, type CronFunction } from "./trigger/cron.ts";
import type { CronState } from "./trigger/cron-job.ts";
import { deliverBy } from "./trigger/deliver.ts";

/** A running napd. Disposing it stops it in the reverse order of its start. */
export interface Daemon extends AsyncDisposable {
  readonly port: number;
  /** In a few words, for whoever looks after napd. */
  status(): string;
  /** Takes up the live ones of changed settings. When it fails, nothing has changed. */
  reload(config: Config): Promise<void>;
}

/** Requests under way may go on for so long when napd stops, ms. */
const drainMs = 30_000;

/** Starts everything; reading order is start order. What was opened is closed again when a later step fails. */
export async function startDaemon(
  config: Config,
  release: Release,
  sockets: readonly InheritedSocket[],
  log: Logger,
): Promise<Daemon> {
  const clock = systemClock;
  const defaultNamespace = config.functions.namespace;
  const table: Table = new Map();
  const routes = openRoutes(config);
  const live = liveSettings(config);
  await using up = new AsyncDisposableStack();
  up.use(await claim("paths.run", config.paths.run));
  up.use(await claim("paths.data", config.paths.data));
  await finishRestore(config.paths.data);
  const certificate = config.tls.certificate === "" ? undefined : up.use(await Certificate.open(config.tls, log));
  const gateway = up.use(
    await openGateway({
      listeners: gatewayListeners(config, sockets, certificate),
      bridgeAddress: bridgeAddress(config),
      defaultNamespace,
      table,
      routes,
      limits: Object.assign(live.gateway, { maxHeaderBytes: config.gateway.max_header_bytes }),
    }),
  );

  if (sockets.length > 0) sayWhereElse(config, gateway.addresses, log);

  const db = openState(config.paths.data);
  up.defer(() => db.close());
  const store = new FunctionStore<Version>(db);
  const images = new ImagesInUse(() => store.list());
  const namespaceStore = new NamespaceStore(db);
  Namespaces.ensureDefault(namespaceStore, defaultNamespace);
  const secretStore = new SecretStore(join(config.paths.data, "secrets"));
  const credentials = await openCredentials(join(config.paths.data, "credentials"));

  // the store knows them before the table does: functions that still run ask for each other while napd starts
  const isFunction = (name: string, namespace = defaultNamespace) =>
    table.has(`${name}.${namespace}`) || store.get({ name, namespace }) !== undefined;
  const readSecret = (namespace: string, name: string) => secretStore.read(namespace, name);
  const namespaceNames = () => namespaceStore.names();
  const needs = {
    ...{ gatewayPort: gateway.port, namespaces: namespaceNames },
    ...{ isFunction, readSecret, clock, log },
    usedImages: () => images.list(),
  };
  const host = up.use(await openHost(config, needs, live));
  const { backend } = host;

  const { defaults } = live;
  const startsAtOnce = config.functions.starts_at_once;
  const rollout = new Rollout(
    Object.assign(live.rollout, { store, images, backend, table, routes, defaults, startsAtOnce, clock, log }),
  );
  if (config.functions.on_stop === "remove") up.defer(() => rollout.removeAll());
  up.use(rollout);
  await rollout.open();

  const hasSecret = async (namespace: string, name: string) => (await readSecret(namespace, name)) !== undefined;
  const functions = new Functions(
    Object.assign(live.deploys, {
      ...{ store, images, backend, rollout, routes, defaults },
      ...{ namespaces: namespaceNames, hasSecret, clock },
    }),
  );
  const occupants = (namespace: string) => functions.occupants(namespace);
  const namespaces = new Namespaces({
    ...{ store: namespaceStore, secrets: secretStore, backend },
    ...{ occupants, defaultNamespace, log },
  });
  await namespaces.open();
  const overwrite = config.api.secret_overwrite;
  const secrets = new Secrets({ store: secretStore, namespaces, backend, overwrite });
  const sleep = new SleepStats();
  const sleeper = sleep.watching(backend);
  const tunnelIdleMs = config.gateway.tunnel_idle;
  const calls = openInvoke({ table, defaultNamespace, thaw: sleeper.thaw, waits: sleep.waits, tunnelIdleMs });
  const { store: queueStore, bodies } = await openQueueStore({
    ...config.queue,
    ackWaitMs: config.queue.ack_wait,
    ...{ dataDir: config.paths.data, reserve: config.images.disk_reserve, clock, log },
  });
  up.use(queueStore);
  const results = up.use(
    await Results.open(join(config.paths.data, "results"), { maxTotalBytes: config.queue.max_results, clock, log }),
  );
  const callNow = openInternalCalls(calls.invoke, config.gateway.max_header_bytes);
  const queue = await Queue.open({
    store: queueStore,
    results,
    bodies,
    guard: new Guard([config.network.subnet], config.queue.callback_allow),
    deliver: callNow,
    limits: asyncLimits(table),
    defaults: { ...defaults.async, maxBodyBytes: 0 },
    maxBodyBytes: config.queue.max_body,
    maxResultBytes: config.queue.max_result,
    maxPending: config.queue.max_pending,
    keepDeadMs: config.queue.keep_dead,
    ...{ defaultNamespace, clock, log },
  });
  up.defer(() => queue.stop(0));
  const usage = up.use(new Usage({ backend, table, clock, log }));
  const { registry, countRequest } = openMetrics({
    functions: () => functions.samples(),
    usage: async () => usage.totals(),
    durationBounds,
    ...{ sleep, waitBounds, queue },
    now: () => clock.now(),
    version: release.version,
  });
  up.use(await openMetricsServer(registry, config.metrics.listen));
  const cron = up.use(
    new Cron({
      functions: () => cronFunctions(rollout.managed()),
      deliver: deliverBy(callNow, openInternalCalls(queue.accept, config.gateway.max_header_bytes)),
      records: new CronStore<CronState>(db),
      timeZone: timeZoneOf(config),
      ...{ clock, log },
    }),
  );
  const stopping = new AbortController();
  const admin = await openApi({
    ...{ functions, images: backend.images, secrets, namespaces, queue, cron, credentials, defaultNamespace },
    ...{ usage: (id) => usage.of(id), release, countRequest, clock, log },
    stopping: stopping.signal,
    upsert: config.api.upsert,
    providerName: config.api.provider_name,
    functionLabel: config.api.function_label,
  });
  gateway.serve({ ...calls, later: queue.accept, admin });
  up.defer(async () => {
    await Promise.all([gateway.drain(drainMs), cron.end(drainMs), queue.stop(drainMs)]);
  });
  up.defer(() => rollout.endDeploys());
  up.defer(() => stopping.abort(new AppError("SHUTTING_DOWN", [])));
  const scaler = up.use(
    new Scaler({
      functions: () => rollout.managed(),
      backend: sleeper,
      stop: (fn) => rollout.stopIdle(fn),
      scale: (fn, replicas) => functions.scale(fn, replicas),
      milliCpu: (fn) => usage.last(fn).cpu,
      clock,
      log,
    }),
  );
  scaler.start();
  up.defer(() => cron.stop());
  if (config.cron.enabled) cron.start();

  const stack = up.move();
  const status = () => {
    const functions = table.size === 1 ? "1 function" : `${table.size} functions`;
    return host.isConnected() ? functions : `${functions}; containerd does not answer`;
  };
  return {
    port: gateway.port,
    status,
    async reload(next) {
      if (certificate && next.tls.certificate !== "") await certificate.reload(next.tls);
      update(live, next);
      log.level = live.level;
      gateway.limit();
      host.useRegistries(live.registries);
      rollout.refresh();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function asyncLimits(table: Table): (fn: string) => FunctionLimits | undefined {
  return (fn) => {
    const policy = table.get(fn)?.policy;
    if (!policy) return undefined;
    const { maxInFlight, maxBodyBytes } = policy.limits;
    const { concurrency } = policy.async;
    return {
      ...policy.async,
      maxBodyBytes,
      concurrency: maxInFlight > 0 ? Math.min(maxInFlight, concurrency) : concurrency,
    };
  };
}

const noAnnotations = {};

function* cronFunctions(functions: Iterable<Managed>): Iterable<CronFunction> {
  for (const { entry, row } of functions)
    yield { id: entry.id, annotations: row.version.spec.annotations ?? noAnnotations };
}

function timeZoneOf({ cron }: Config): string {
  return cron.timezone === "local" ? Intl.DateTimeFormat().resolvedOptions().timeZone : cron.timezone;
}

function openRoutes({ routes, gateway, functions }: Config): Routes {
  const fixed = routes.map(({ host, prefix, address }) => ({
    host,
    prefix,
    key: keyOf(splitAddress(address, functions.namespace)),
  }));
  return new Routes(fixed, gateway.function_routes === "allow");
}

/** Sockets that napd was started with take the place of settings gateway.listen and, called `tls`, tls.listen. */
function gatewayListeners(
  { gateway, tls }: Config,
  sockets: readonly InheritedSocket[],
  certificate: Certificate | undefined,
): ListenerOptions[] {
  const isTls = ({ name }: InheritedSocket) => name === "tls";
  const plain: ListenerOptions[] = sockets
    .filter((socket) => !isTls(socket))
    .map(({ fd }) => ({ at: { fd }, setting: "gateway.listen" }));
  if (plain.length === 0) plain.push({ at: gateway.listen, setting: "gateway.listen" });
  if (certificate === undefined) {
    if (sockets.some(isTls)) throw new AppError("CONFIG", ["socket tls wants settings tls.certificate and tls.key"]);
    return plain;
  }
  const secure: ListenerOptions[] = sockets
    .filter(isTls)
    .map(({ fd }) => ({ at: { fd }, setting: "tls.listen", certificate }));
  if (secure.length === 0 && tls.listen) secure.push({ at: tls.listen, setting: "tls.listen", certificate });
  return [...plain, ...secure];
}

/** Who looks for napd where a setting says should find out why it is not there. */
function sayWhereElse({ gateway }: Config, found: readonly ListenAddress[], log: Logger): void {
  const { write, fallback } = settings.gateway.listen;
  const asWritten = (address: ListenAddress) => write(address).replace("[::]", "0.0.0.0");
  const [wanted, sockets] = [asWritten(gateway.listen), found.map(asWritten)];
  if (sockets.includes(wanted)) return;
  const wasSaid = wanted !== write(fallback);
  const fields = { "gateway.listen": wanted, sockets };
  log[wasSaid ? "warn" : "info"](fields, "the socket unit says where to listen, not gateway.listen");
}

function bridgeAddress(config: Config): string {
  return hostAddress(parseSubnet(config.network.subnet));
}

/**
 * Only one napd may work on a directory: two would take each other's containers for leftovers. An abstract socket is a
 * lock that the kernel drops when its holder dies, however it dies.
 */
export async function claim(setting: "paths.run" | "paths.data", given: string): Promise<AsyncDisposable> {
  await mkdir(given, { recursive: true, mode: 0o700 });
  const dir = await realpath(given);
  const lock = createServer();
  await new Promise<void>((resolve, reject) => {
    lock.once("error", (cause) =>
      reject(
        new AppError(
          "CONFIG",
          [`another napd runs with ${setting} ${given}; stop it, or give this one other paths and another bridge`],
          { cause },
        ),
      ),
    );
    lock.listen(`\0napd:${dir}`, resolve);
  });
  return { [Symbol.asyncDispose]: () => new Promise((resolve) => lock.close(() => resolve())) };
}
