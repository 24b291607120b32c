/** How fast asynchronous calls are accepted, each on disk before its 202, beside a plain loop of write and fsync. */
import { open } from "node:fs/promises";
import { Agent, request } from "node:http";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { systemClock } from "../src/base/clock.ts";
import { openLog } from "../src/base/log.ts";
import { asyncDefaults } from "../src/functions/async-policy.ts";
import { Bodies } from "../src/queue/bodies.ts";
import { Guard } from "../src/queue/guard.ts";
import { Queue } from "../src/queue/queue.ts";
import { bodiesDir, SqliteStore } from "../src/queue/sqlite.ts";
import { openTestGateway } from "../test/support/gateway.ts";
import { tmpDir } from "../test/support/tmp.ts";
import type { Bench, Measurement } from "./measure.ts";

const calls = Number(process.env.NAPD_BENCH_REQUESTS ?? 100_000);
const callers = 64;
const syncs = 500;

/** Bytes that are held, in and beside the heap, after a full collection. */
function held(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

export const queue: Bench = async () => {
  await using up = new AsyncDisposableStack();
  const { path } = up.use(await tmpDir());
  const store = up.use(await SqliteStore.open(path));
  // nothing is taken: this is about what comes in
  const limits = { ...asyncDefaults, concurrency: 0, maxPending: calls, maxBodyBytes: 0 };
  const asked = await Queue.open({
    ...{ store, bodies: new Bodies(bodiesDir(path)), guard: new Guard([], []) },
    deliver: () => Promise.reject(new Error("nothing is delivered here")),
    ...{ limits: () => limits, defaults: limits, defaultNamespace: "fn", maxBodyBytes: 2 ** 20 },
    ...{ maxPending: calls, keepDeadMs: 1e9, clock: systemClock, log: openLog("silent") },
  });
  up.defer(() => asked.stop(0));
  const gateway = up.use(await openTestGateway());
  const none = () => {
    throw new Error("nobody calls this");
  };
  gateway.serve({ invoke: none, upgrade: none, admin: none, later: asked.accept });
  const agent = new Agent({ keepAlive: true, maxSockets: callers });
  up.defer(() => agent.destroy());

  const loop = await fsyncRate(`${path}/plain`);
  const options = { port: gateway.port, agent, method: "POST", path: "/async-function/f" };
  const body = Buffer.alloc(1000, "x");
  const send = () =>
    new Promise<void>((resolve, reject) => {
      const req = request(options, (res) => {
        if (res.statusCode !== 202) reject(new Error(`answered with ${res.statusCode}`));
        res.resume().once("end", resolve);
      });
      req.once("error", reject);
      req.end(body);
    });
  const many = async (count: number) => {
    let left = count;
    const caller = async () => {
      while (left-- > 0) await send();
    };
    const begin = performance.now();
    await Promise.all(Array.from({ length: callers }, caller));
    return (count / (performance.now() - begin)) * 1000;
  };
  await many(Math.ceil(calls / 10));
  const early = held();
  const rate = await many(Math.floor((calls * 9) / 10));
  const late = held();
  const mib = (bytes: number) => +(bytes / 2 ** 20).toFixed(1);
  const found: Measurement[] = [
    { name: "calls accepted", unit: "/s", value: Math.round(rate), peers: { "write and fsync": Math.round(loop) } },
    { name: `held with ${calls} queued`, unit: "MiB", value: mib(late), peers: { "with a tenth": mib(early) } },
    { name: "resident, with its callers", unit: "MiB", value: mib(process.memoryUsage().rss), peers: {} },
  ];
  return found;
};

/** Appends of 1,000 bytes, each of them synced. */
async function fsyncRate(file: string): Promise<number> {
  await using handle = await open(file, "w");
  const bytes = Buffer.alloc(1000, "x");
  const begin = performance.now();
  for (let i = 0; i < syncs; i++) {
    await handle.write(bytes);
    await handle.datasync();
  }
  return (syncs / (performance.now() - begin)) * 1000;
}
