import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Agent, request } from "undici";
import { webImage } from "../test/support/images.ts";
import { eventually, openWorld, type World } from "../test/support/world.ts";
import { upstreamImage } from "./images.ts";
import { type Measurement, quantile } from "./measure.ts";

const rounds = 10;
const callsPerRound = 400;
const warmUp = 150;
/** A call each so many ms, of either kind in turn. */
const everyMs = 10;
const slowQueue = 1000;

/**
 * A quick function, called and called asynchronously, while another one sleeps for 30 s with its queue full, and while
 * it does not, in turns. Asynchronous calls count from their sending until their callback has come.
 */
export async function queueFairness(): Promise<Measurement[]> {
  await using up = new AsyncDisposableStack();
  const world = up.use(await openWorld());
  await world.start({ "images.pull_policy": "Never", "queue.callback_allow": "127.0.0.0/8" });
  await world.import(await upstreamImage(world.dir, "docker.io/library/upstream:1"));
  await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
  await deploy(world, { service: "quick", image: "upstream:1" });
  await deploy(world, {
    ...{ service: "slow", image: "web:1" },
    annotations: { "napd.async-queue": String(slowQueue) },
  });
  const caller = up.use(await openCaller(world));
  const idle = { sync: [] as number[], async: [] as number[] };
  const beside = { sync: [] as number[], async: [] as number[] };
  for (let i = 0; i < rounds; i++) {
    await caller.round(idle);
    const ids = await fill(world);
    await caller.round(beside);
    await Promise.all(ids.map((id) => world.api("DELETE", `/system/queue/${id}`)));
  }
  const line = (name: string, kind: "sync" | "async", q: number): Measurement => {
    const [value, alone] = [quantile(beside[kind], q), quantile(idle[kind], q)];
    return { name: `${name}, p${q * 100}`, unit: "ms", value: +value.toFixed(2), peers: { alone: +alone.toFixed(2) } };
  };
  return [0.5, 0.99].flatMap((q) => [
    line("quick function beside a slow one with a full queue", "sync", q),
    line("the same asynchronously, until the callback", "async", q),
  ]);
}

async function deploy(world: World, spec: object): Promise<void> {
  const { status, text } = await world.api("POST", "/system/functions", spec);
  if (status !== 202) throw new Error(`deploy answered ${status}: ${text}`);
}

/** Queues calls of the slow function until it takes no more; returns their ids once some of them run. */
async function fill(world: World): Promise<string[]> {
  const ids: string[] = [];
  for (;;) {
    const id = randomUUID();
    const init = { method: "POST", headers: { "X-Call-Id": id } };
    const { status } = await world.call("/async-function/slow/cgi-bin/slow?30", init);
    if (status === 429) break;
    ids.push(id);
  }
  const running = async () =>
    JSON.parse((await world.api("GET", "/system/queue?function=slow&state=running")).text) as unknown[];
  await eventually(running, (calls) => calls.length === 10);
  return ids;
}

/** Calls the quick function and receives its callbacks. */
async function openCaller(world: World) {
  await using up = new AsyncDisposableStack();
  const waiting = new Map<string, () => void>();
  const server = createServer((req, res) => {
    waiting.get(String(req.headers["x-call-id"]))?.();
    req.resume();
    res.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  up.defer(() => void server.close());
  const dispatcher = new Agent();
  up.defer(() => dispatcher.destroy());
  const receiver = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;

  const timed = async (path: string, status: number, headers: Record<string, string>, after?: Promise<void>) => {
    const begin = performance.now();
    const { statusCode, body } = await request(`${world.url}${path}`, { method: "POST", headers, dispatcher });
    await body.dump();
    if (statusCode !== status) throw new Error(`${path} answered ${statusCode}`);
    await after;
    return performance.now() - begin;
  };
  const sync = () => timed("/function/quick", 200, {});
  const async = () => {
    const id = randomUUID();
    const told = new Promise<void>((resolve) => waiting.set(id, resolve));
    return timed("/async-function/quick", 202, { "X-Call-Id": id, "X-Callback-Url": receiver }, told);
  };
  const stack = up.move();
  return {
    /** The first ones do not count: what was done before may still echo. */
    async round(into: { sync: number[]; async: number[] }) {
      const underWay: Promise<unknown>[] = [];
      for (let i = -warmUp; i < callsPerRound; i++) {
        const kind = i % 2 ? "async" : "sync";
        underWay.push((kind === "sync" ? sync() : async()).then((ms) => i >= 0 && into[kind].push(ms)));
        await delay(everyMs);
      }
      await Promise.all(underWay);
      waiting.clear();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
