import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Agent, request } from "undici";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { openLog } from "../../src/base/log.ts";
import { Functions } from "../../src/functions/functions.ts";
import { ImagesInUse } from "../../src/functions/images-in-use.ts";
import type { Version } from "../../src/functions/managed.ts";
import { Rollout } from "../../src/functions/rollout.ts";
import type { ScaleDefaults } from "../../src/functions/scale-policy.ts";
import { type FunctionSpec, parseDeployment } from "../../src/functions/spec.ts";
import type { FunctionStatus } from "../../src/functions/status.ts";
import type { Table } from "../../src/functions/table.ts";
import { functionRoute } from "../../src/gateway/route.ts";
import { openInvoke } from "../../src/invoke/invoke.ts";
import { FunctionStore } from "../../src/store/functions.ts";
import { openState } from "../../src/store/state.ts";
import { tmpDir } from "../support/tmp.ts";
import { FakeBackend } from "./backend.ts";
import { policyDefaults } from "./policy.ts";

export const namespace = "fn";

export interface PlatformOptions {
  readyTimeoutMs?: number;
  graceMs?: number;
  timeoutMs?: number;
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
  /** Names of secrets that exist. */
  readonly secrets: Set<string>;
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
  const store = new FunctionStore<Version>(db);
  const images = new ImagesInUse(() => store.list());
  const backend = up.use(new FakeBackend());
  const table: Table = new Map();
  const secrets = new Set<string>();
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
      defaults,
      deployWaitMs: 10_000,
      namespaces: () => [namespace],
      hasSecret: async (_, name) => secrets.has(name),
      clock,
    });
  let rollout = makeRollout();
  up.defer(() => rollout[Symbol.asyncDispose]());
  await rollout.open();
  let functions = openFunctions();

  const invoke = openInvoke({ table, defaultNamespace: namespace, thaw: (replica) => backend.thaw(replica) });
  const server = createServer((req, res) => {
    const route = functionRoute(req.url!)!;
    invoke(req, res, route.address, route.target);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const agent = new Agent({ headersTimeout: 30_000 });
  up.defer(async () => {
    await agent.destroy();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  const specOf = (body: Partial<Record<string, unknown>>): FunctionSpec => parseDeployment(body, namespace);
  const stack = up.move();
  return {
    backend,
    store,
    table,
    secrets,
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
