import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { type Child, startChild, waitReady } from "../../scripts/child.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openLog } from "../../src/base/log.ts";
import { type NatsQueueOptions, openNatsQueue } from "../../src/queue/nats/open.ts";
import { until } from "../fakes/platform.ts";
import { freePort } from "./free-port.ts";

/** A NATS server with JetStream, on a port and in a directory of its own. Disposing it ends it. */
export interface NatsServer extends AsyncDisposable {
  readonly url: string;
  /** Starts it again, with its data, on the same port. */
  start(): Promise<void>;
  stop(): Promise<void>;
  kill9(): Promise<void>;
}

/** Starts the nats-server in PATH; `args` are further options of it. */
export async function openNats(dir: string, args: string[] = []): Promise<NatsServer> {
  const port = await freePort();
  const logFile = `${dir}/nats.log`;
  let server: Child | undefined;
  const nats: NatsServer = {
    url: `nats://127.0.0.1:${port}`,
    async start() {
      const own = ["-js", "-sd", `${dir}/nats`, "-a", "127.0.0.1", "-p", String(port)];
      server = await startChild("nats-server", [...own, ...args], { logFile });
      await waitReady(server, () => accepts(port), { what: "nats-server", timeoutMs: 20_000, logFile });
    },
    async kill9() {
      await server?.kill9();
    },
    async stop() {
      await server?.stop();
    },
    [Symbol.asyncDispose]: () => nats.stop(),
  };
  await nats.start();
  return nats;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** A napd's queue on such a server, with its files in `dir`; `reached` waits until it has a connection. */
export async function openQueueOn(url: string, dir: string, more: Partial<NatsQueueOptions> = {}) {
  const spillDir = `${dir}/spill-${randomUUID()}`;
  const { store, bodies } = await openNatsQueue({
    ...{ url, spillDir, credentials: "", ca: "", prefix: "napd", ackWaitMs: 1500, reserve: 0 },
    ...{ clock: systemClock, log: openLog("silent") },
    ...more,
  });
  const available: string[] = [];
  const removed: number[] = [];
  store.watch({
    available: (lane, fn) => void available.push(`${lane} ${fn}`),
    removed: (seqs) => void removed.push(...seqs),
  });
  const works = () =>
    store.depths().then(
      () => true,
      () => false,
    );
  return {
    ...{ store, bodies, available, removed },
    reached: () => until("the queue has reached its server", works),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}
