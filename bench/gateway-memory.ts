import { execFile } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { openWorld, type World } from "../test/support/world.ts";
import { deployUpstream } from "./gateway.ts";
import type { Measurement } from "./measure.ts";
import { memoryOf, openFiles } from "./process.ts";

const run = promisify(execFile);
/** Requests in all; NAPD_BENCH_REQUESTS for fewer. */
const requests = Number(process.env.NAPD_BENCH_REQUESTS ?? 1_000_000);
/** Those that are aborted, besides. */
const aborted = Math.min(10_000, requests / 10);

/**
 * What calls leave behind: resident memory after a tenth of the requests and after all of them, open files before and
 * after calls that are aborted at every stage, and memory while large bodies pass. Fails when memory grows by more than
 * a third or a socket stays.
 */
export async function gatewayMemory(): Promise<Measurement[]> {
  await using up = new AsyncDisposableStack();
  const world = up.use(await openWorld());
  await world.start({ "images.pull_policy": "Never" });
  await deployUpstream(world);
  const { pid } = world.napd();
  const megabytes = async () => +((await memoryOf(pid)).Rss! / 1024).toFixed(1);

  await load(world, requests / 10);
  const files = await settledFiles(pid);
  const early = await megabytes();
  await load(world, requests * 0.9);
  const late = await megabytes();
  await abort(world, aborted);
  const left = (await settledFiles(pid)) - files;
  const giant = await giants(world, megabytes);
  if (late > early * 1.34) throw new Error(`memory grew from ${early} MB to ${late} MB`);
  if (left > 2) throw new Error(`${left} files stayed open`); // of containerd's or the log's, which come and go
  return [
    { name: `gateway, resident memory after ${requests / 10} requests`, unit: "MB", value: early, peers: {} },
    { name: `gateway, resident memory after ${requests} requests`, unit: "MB", value: late, peers: {} },
    { name: `gateway, and after ${aborted} aborted ones`, unit: "MB", value: await megabytes(), peers: {} },
    { name: "gateway, files that those left open", unit: "", value: left, peers: {} },
    { name: "gateway, most while 1 GiB goes up and 1 GiB down", unit: "MB", value: giant, peers: {} },
  ];
}

/** At least so many requests, by GET. */
async function load(world: World, count: number): Promise<void> {
  for (let done = 0; done < count; ) {
    const { stdout } = await run("wrk", ["-t1", "-c32", "-d5s", `${world.url}/function/upstream`]);
    const [, served] = /(\d+) requests in/.exec(stdout) ?? [];
    if (!served || /Non-2xx|Socket errors/.test(stdout)) throw new Error(`wrk: ${stdout}`);
    done += Number(served);
  }
}

const slow = "/function/upstream/slow HTTP/1.1\r\nHost: x\r\n";
/** How far an aborted call gets: nothing, half a head, waiting for the answer, within the body, within the answer, upgrade. */
const stages = [
  "",
  `GET ${slow.slice(0, 20)}`,
  `GET ${slow}\r\n`,
  `POST ${slow}Content-Length: 100000\r\n\r\nsome of it`,
  `POST ${slow}Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n`,
  "GET /function/upstream/half HTTP/1.1\r\nHost: x\r\n\r\n",
  `GET ${slow}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
];

async function abort(world: World, count: number): Promise<void> {
  let next = 0;
  const one = async () => {
    for (let i = next++; i < count; i = next++) {
      const socket = connect(world.port, "127.0.0.1");
      socket.on("error", () => {});
      await once(socket, "connect");
      socket.write(stages[i % stages.length]!);
      await delay(i % 7); // spreads the aborts over what happens meanwhile
      if (i % 2) socket.resetAndDestroy();
      else socket.destroy();
    }
  };
  await Promise.all(Array.from({ length: 32 }, one));
}

/** The most memory while a body of 1 GiB goes up and another one down, at once. */
async function giants(world: World, megabytes: () => Promise<number>): Promise<number> {
  const url = `${world.url}/function/upstream`;
  const upload = `truncate -s 1G ${world.dir}/giant && curl -sSf -X POST -T ${world.dir}/giant ${url}/up`;
  const both = Promise.all([run("sh", ["-c", upload]), run("sh", ["-c", `curl -sSf ${url}/giant | wc -c`])]);
  let most = 0;
  let isOver = false;
  const over = both.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    most = Math.max(most, await megabytes());
    await delay(50);
  }
  const [up, down] = await over;
  if (up.stdout !== "ok" || down.stdout.trim() !== String(2 ** 30)) throw new Error(`${up.stdout}, ${down.stdout}`);
  return most;
}

/** Open files once their number stands still. */
async function settledFiles(pid: number): Promise<number> {
  let [before, now] = [-1, await openFiles(pid)];
  while (now !== before) {
    await delay(3000);
    [before, now] = [now, await openFiles(pid)];
  }
  return now;
}
