import { mapBounded } from "../src/base/bounded.ts";
import { webImage } from "../test/support/images.ts";
import { eventually, openWorld, type World } from "../test/support/world.ts";
import { type Measurement, quantile, timed } from "./measure.ts";
import { memoryOf } from "./process.ts";

/** `NAPD_BENCH_FUNCTIONS`: how many. */
const functions = Number(process.env.NAPD_BENCH_FUNCTIONS ?? 100);
const lists = 50;

/**
 * Many functions on one machine: deploying them all (8 at a time), the list of them, napd's memory, and a restart of
 * napd, and one of the machine (containers, networks and /run gone), each until every function has answered a call.
 */
export async function scaleOut(): Promise<Measurement[]> {
  await using world = await openWorld();
  const settings = { "functions.grace": "50ms", "images.pull_policy": "Never", "network.subnet": "10.199.0.0/20" };
  await world.start(settings);
  await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
  const names = Array.from({ length: functions }, (_, i) => `web-${i}`);
  const empty = await rss(world);
  const deployed = await timed(() => mapBounded(names, 8, (service) => deploy(world, service)));
  const full = await rss(world);
  const list: number[] = [];
  for (let i = 0; i < lists; i++) list.push(await timed(() => world.api("GET", "/system/functions")));

  await world.napd().stop(60_000);
  const restart = await timed(async () => {
    await world.start(settings);
    await mapBounded(names, 16, (name) => call(world, name));
  });
  const restarted = await rss(world);

  await world.reboot();
  const reboot = await timed(async () => {
    await world.start(settings);
    await call(world, names.at(-1)!);
  });
  const all = await timed(async () => void (await mapBounded(names, 4, (name) => call(world, name))));

  const of = (what: string) => `${functions} functions, ${what}`;
  const one = (name: string, unit: string, value: number) => ({
    name: of(name),
    unit,
    value: +value.toFixed(1),
    peers: {},
  });
  return [
    one("deploying all", "s", deployed / 1000),
    one("list, p50", "ms", quantile(list, 0.5)),
    one("list, p99", "ms", quantile(list, 0.99)),
    one("resident memory before", "MB", empty),
    one("resident memory with all", "MB", full),
    one("resident memory after a restart", "MB", restarted),
    one("restart of napd to all answering", "s", restart / 1000),
    one("reboot to the first answer, of the last one", "s", reboot / 1000),
    one("reboot to all answering", "s", (reboot + all) / 1000),
  ];
}

async function deploy(world: World, service: string): Promise<void> {
  const { status, text } = await world.api("POST", "/system/functions", { service, image: "web:1" });
  if (status !== 202) throw new Error(`${service}: ${status} ${text}`);
}

async function call(world: World, name: string): Promise<void> {
  await eventually(
    () => world.call(`/function/${name}`),
    ({ status }) => status === 200,
    120_000,
  );
}

/** Of napd, MB. */
async function rss(world: World): Promise<number> {
  return (await memoryOf(world.napd().pid)).Rss! / 1024;
}
