import { open } from "node:fs/promises";
import { Agent, request } from "node:http";
import { openNats } from "../test/support/nats.ts";
import { tmpDir } from "../test/support/tmp.ts";
import { eventually, openWorld, type World } from "../test/support/world.ts";
import { upstreamImage } from "./images.ts";
import type { Bench, Measurement } from "./measure.ts";
import { memoryOf } from "./process.ts";

const calls = Number(process.env.NAPD_BENCH_REQUESTS ?? 100_000);
const callers = 64;
const syncs = 500;
const body = Buffer.alloc(1000, "x");

/** Else V8 would let garbage pile up by the size of this machine, and memory would tell of that. */
const heap = "--max-semi-space-size=4 --max-old-space-size=128";

/**
 * How fast asynchronous calls are accepted, each on disk before its 202, beside those that a NATS server keeps and a plain
 * loop of write and fsync on the same disk; and napd's resident memory with none, a tenth and all of them queued, and when all were made. They wait
 * behind one that does not end.
 */
export const queue: Bench = async () => {
  await using world = await openWorld();
  const room = String(calls + 1);
  const settings = { "images.pull_policy": "Never", "queue.max_pending": room, "queue.max_pending_function": room };
  await world.start(settings, { NODE_OPTIONS: heap });
  await world.import(await upstreamImage(world.dir, "docker.io/library/upstream:1"));
  await deploy(world, "POST", 1);
  const { pid } = world.napd();
  const overNats = Math.round(await natsRate());
  const megabytes = async () => +((await memoryOf(pid)).Rss! / 1024).toFixed(1);
  const loop = Math.round(await fsyncRate(`${world.dir}/plain`));
  using load = startCallers(world.port);

  await load.send("/async-function/upstream/slow", 1, { "X-Call-Id": "first" });
  const atRest = await megabytes();
  await load.send("/async-function/upstream", Math.ceil(calls / 10));
  const tenth = await megabytes();
  const took = await load.send("/async-function/upstream", Math.floor(calls * 0.9));
  const all = await megabytes();
  await deploy(world, "PUT", callers);
  const begin = performance.now();
  await world.api("DELETE", "/system/queue/first");
  await eventually(
    async () => JSON.parse((await world.api("GET", "/system/queue?limit=1")).text) as unknown[],
    (left) => left.length === 0,
    600_000,
  );
  const made = performance.now() - begin;
  const one = (name: string, unit: string, value: number, peers: Measurement["peers"] = {}) => ({
    ...{ name, unit, value: Math.round(value), peers },
  });
  return [
    one("calls accepted", "/s", ((calls * 0.9) / took) * 1000, { "kept by NATS": overNats, "write and fsync": loop }),
    one("calls made, while nothing comes in", "/s", (calls / made) * 1000),
    one("resident memory, heap limited to 128 MB, with nothing queued", "MB", atRest),
    one(`with ${calls / 10} queued`, "MB", tenth),
    one(`with ${calls} queued`, "MB", all),
    one("when all were made", "MB", await megabytes()),
  ];
};

/** Calls a second that are accepted when a NATS server on this machine keeps them, which does not sync each. */
async function natsRate(): Promise<number> {
  await using dir = await tmpDir();
  await using server = await openNats(dir.path);
  await using world = await openWorld();
  await world.start({ "images.pull_policy": "Never", "queue.url": server.url });
  await world.import(await upstreamImage(world.dir, "docker.io/library/upstream:1"));
  await deploy(world, "POST", 1);
  using load = startCallers(world.port);
  await load.send("/async-function/upstream/slow", 1);
  const some = Math.min(calls, 10_000);
  return (some / (await load.send("/async-function/upstream", some))) * 1000;
}

async function deploy(world: World, method: "POST" | "PUT", concurrency: number): Promise<void> {
  const annotations = { "napd.async-concurrency": String(concurrency), "napd.timeout": "1h" };
  const spec = { service: "upstream", image: "upstream:1", annotations };
  const { status, text } = await world.api(method, "/system/functions", spec);
  if (status !== 202) throw new Error(`deploy answered ${status}: ${text}`);
}

function startCallers(port: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: callers });
  const post = (path: string, headers: Record<string, string>) =>
    new Promise<void>((resolve, reject) => {
      const req = request({ port, agent, method: "POST", path, headers }, (res) => {
        if (res.statusCode !== 202) reject(new Error(`answered with ${res.statusCode}`));
        res.resume().once("end", resolve);
      });
      req.once("error", reject);
      req.end(body);
    });
  return {
    /** Ms that it took. */
    async send(path: string, count: number, headers: Record<string, string> = {}): Promise<number> {
      let left = count;
      const begin = performance.now();
      const caller = async () => {
        while (left-- > 0) await post(path, headers);
      };
      await Promise.all(Array.from({ length: callers }, caller));
      return performance.now() - begin;
    },
    [Symbol.dispose]: () => agent.destroy(),
  };
}

/** Appends of 1,000 bytes a second, each of them synced. */
async function fsyncRate(file: string): Promise<number> {
  await using handle = await open(file, "w");
  const begin = performance.now();
  for (let i = 0; i < syncs; i++) {
    await handle.write(body);
    await handle.datasync();
  }
  return (syncs / (performance.now() - begin)) * 1000;
}
