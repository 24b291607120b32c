import { setTimeout as delay } from "node:timers/promises";
import { Agent, request } from "undici";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { openLog } from "../../src/base/log.ts";
import type { ReplicaIdentity } from "../../src/functions/backend.ts";
import { Functions } from "../../src/functions/functions.ts";
import { ImagesInUse } from "../../src/functions/images-in-use.ts";
import type { Version } from "../../src/functions/managed.ts";
import { Namespaces } from "../../src/functions/namespaces.ts";
import { Rollout } from "../../src/functions/rollout.ts";
import { Routes } from "../../src/functions/routes.ts";
import type { ScaleDefaults } from "../../src/functions/scale-policy.ts";
import { SleepStats } from "../../src/functions/sleep-stats.ts";
import { type FunctionSpec, parseDeployment } from "../../src/functions/spec.ts";
import type { FunctionStatus } from "../../src/functions/status.ts";
import type { Table } from "../../src/functions/table.ts";
import { openInvoke } from "../../src/invoke/invoke.ts";
import { FunctionStore } from "../../src/store/functions.ts";
import { NamespaceStore } from "../../src/store/namespaces.ts";
import { SecretStore } from "../../src/store/secrets.ts";
import { openState } from "../../src/store/state.ts";
import { openTestGateway } from "../support/gateway.ts";
import { tmpDir } from "../support/tmp.ts";
import { FakeBackend } from "./backend.ts";
import { policyDefaults } from "./policy.ts";

export const namespace = "fn";

export interface PlatformOptions {
  readyTimeoutMs?: number;
  graceMs?: number;
  timeoutMs?: number;
  tunnelIdleMs?: number;
  startsAtOnce?: number;
  clock?: Clock;
  /** No scaler runs here, and what is scaled to 0 is stopped, unless `stopAfterMs` says otherwise. */
  scale?: Partial<ScaleDefaults>;
}

/** Functions on the fake backend: the real store, rollout and gateway path, without a machine. */
export interface Platform extends AsyncDisposable {
  readonly backend: FakeBackend;
  readonly store: FunctionStore<Version>;
  readonly table: Table;
  readonly routes: Routes;
  readonly secrets: SecretStore;
  readonly namespaces: NamespaceStore;
  readonly url: string;
  functions(): Functions;
  rollout(): Rollout;
  /** Ends the rollout, as a stop of napd does, and opens a new one on what is there. */
  restart(between?: () => Promise<unknown>): Promise<void>;
  close(): Promise<void>;
  create(body: Partial<Record<string, unknown>>): Promise<string>;
  update(body: Partial<Record<string, unknown>>): Promise<string>;
  /** Calls /function/PATH. */
  call(path: string): Promise<{ status: number; text: string }>;
  status(name: string): FunctionStatus | undefined;
  /** Ids of those who are sent requests. */
  routable(name: string): string[];
}

export async function openPlatform(options: PlatformOptions = {}): Promise<Platform> {
  await using up = new AsyncDisposableStack();
  const { path } = up.use(await tmpDir());
  const db = openState(path);
  up.defer(() => db.close());
  db.exec("PRAGMA synchronous = OFF"); // no test here cuts the power
  const store = new FunctionStore<Version>(db);
  const images = new ImagesInUse(() => store.list());
  const backend = up.use(new FakeBackend());
  const table: Table = new Map();
  const routes = new Routes();
  const secrets = new SecretStore(`${path}/secrets`);
  const namespaces = new NamespaceStore(db);
  Namespaces.ensureDefault(namespaces, namespace);
  const clock = options.clock ?? systemClock;
  const defaults = {
    ...policyDefaults,
    timeoutMs: options.timeoutMs ?? 20_000,
    scale: { ...policyDefaults.scale, stopAfterMs: 0, ...options.scale },
  };

  const makeRollout = () =>
    new Rollout({
      store,
      images,
      backend,
      table,
      routes,
      defaults,
      readyTimeoutMs: options.readyTimeoutMs ?? 5000,
      graceMs: options.graceMs ?? 5000,
      startsAtOnce: options.startsAtOnce ?? 100,
      clock,
      log: openLog("silent"),
    });
  const openFunctions = () =>
    new Functions({
      store,
      images,
      backend,
      rollout,
      routes,
      defaults,
      deployWaitMs: 10_000,
      namespaces: () => namespaces.names(),
      hasSecret: async (ns, name) => (await secrets.read(ns, name)) !== undefined,
      clock,
    });
  let rollout = makeRollout();
  up.defer(() => rollout[Symbol.asyncDispose]());
  await rollout.open();
  let functions = openFunctions();

  const thaw = (replica: ReplicaIdentity) => backend.thaw(replica);
  const calls = openInvoke({
    table,
    defaultNamespace: namespace,
    thaw,
    waits: new SleepStats().waits,
    tunnelIdleMs: options.tunnelIdleMs ?? 60_000,
  });
  const gateway = await openTestGateway({ defaultNamespace: namespace, table, routes });
  gateway.serve({ ...calls, later: calls.invoke, admin: (_, res) => void res.writeHead(404).end() });
  const url = `http://127.0.0.1:${gateway.port}`;
  const agent = new Agent({ headersTimeout: 30_000 });
  up.defer(async () => {
    await agent.destroy();
    await gateway[Symbol.asyncDispose]();
  });

  const specOf = (body: Partial<Record<string, unknown>>): FunctionSpec => parseDeployment(body, namespace);
  const stack = up.move();
  return {
    backend,
    store,
    table,
    routes,
    secrets,
    namespaces,
    url,
    functions: () => functions,
    rollout: () => rollout,
    async restart(between) {
      await rollout[Symbol.asyncDispose]();
      await between?.();
      table.clear();
      rollout = makeRollout();
      functions = openFunctions();
      await rollout.open();
    },
    close: () => rollout[Symbol.asyncDispose](),
    create: async (body) => functions.deploy(specOf(body), "create"),
    update: async (body) => functions.deploy(specOf(body), "update"),
    call(to) {
      const answer = request(`${url}/function/${to}`, { dispatcher: agent }).then(async ({ statusCode, body }) => ({
        status: statusCode,
        text: await body.text(),
      }));
      answer.catch(() => {}); // a test that fails before it waits for it shall tell of its own failure
      return answer;
    },
    status: (name) => functions.get({ name, namespace }),
    routable: (name) => (table.get(`${name}.${namespace}`)?.routable ?? []).map((r) => r.id),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Waits for a condition; fails with `what` when it does not come true. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, timeoutMs = 10_000) {
  const end = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`did not come true: ${what}`);
    await delay(2);
  }
}

/** A promise to be resolved by hand. */
export function gate(): { opened: Promise<void>; open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { opened: promise, open: resolve };
}
