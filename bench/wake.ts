import { setTimeout as delay } from "node:timers/promises";
import { Agent, request } from "undici";
import { webImage } from "../test/support/images.ts";
import { freezerStates } from "../test/support/sleep.ts";
import { eventually, openWorld, type World } from "../test/support/world.ts";
import { type Measurement, quantile, timed } from "./measure.ts";

const rounds = 200;
const coldRounds = 20;
const burst = 1000;
const many = 100;
const settings = { "functions.grace": "50ms", "images.pull_policy": "Never" };

/** How long callers wait for functions that sleep, beside functions that do not; and many at once. */
export async function wake(): Promise<Measurement[]> {
  await using world = await openWorld();
  await world.start(settings);
  await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
  await using up = new AsyncDisposableStack();
  const agent = new Agent({ headersTimeout: 60_000, connections: null });
  up.defer(() => agent.destroy());
  const call = async (name: string) => {
    const { statusCode, body } = await request(`${world.url}/function/${name}/`, { dispatcher: agent });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`${name} answered ${statusCode}: ${text}`);
  };
  return [...(await oneByOne(world, call)), ...(await firstCalls(world, call)), ...(await manyFunctions(world, call))];
}

type Call = (name: string) => Promise<void>;

/** A server that takes many connections at once: our watchdog with the image's files. */
const files = { envVars: { mode: "static", static_path: "/www" }, annotations: { "napd.watchdog": "inject" } };

async function deploy(world: World, service: string, idle: string, more: object = files): Promise<void> {
  const labels = { "com.openfaas.scale.zero-duration": idle };
  const { status, text } = await world.api("POST", "/system/functions", { service, image: "web:1", labels, ...more });
  if (status !== 202) throw new Error(`deploy answered ${status}: ${text}`);
}

async function asleep(world: World, name: string): Promise<void> {
  await eventually(
    () => freezerStates(world, name),
    (states) => states.length > 0 && states.every((s) => s === "frozen"),
  );
}

async function oneByOne(world: World, call: Call): Promise<Measurement[]> {
  await deploy(world, "frozen", "20ms");
  await deploy(world, "awake", "1h");
  const stopped = { ...files, annotations: { ...files.annotations, "napd.stop-after": "0s" } };
  await deploy(world, "stopped", "20ms", stopped);
  const took: Record<string, number[]> = { frozen: [], awake: [], paused: [], stopped: [] };
  for (let i = 0; i < rounds; i++) {
    await asleep(world, "frozen");
    took.frozen!.push(await timed(() => call("frozen")));
    await delay(Math.random() * 10);
    took.awake!.push(await timed(() => call("awake")));
  }
  for (let i = 0; i < coldRounds; i++) {
    await eventually(
      () => world.ctr("containers", "list", "--quiet"),
      (list) => !list.includes("stopped"),
    );
    took.stopped!.push(await timed(() => call("stopped")));
  }
  await world.napd().stop(30_000);
  await world.start({ ...settings, "scale.freezer": "containerd" });
  await call("frozen"); // was frozen by the cgroup: this one does not count
  for (let i = 0; i < rounds; i++) {
    await asleep(world, "frozen");
    took.paused!.push(await timed(() => call("frozen")));
  }
  await world.napd().stop(30_000);
  await world.start(settings);
  return [0.5, 0.9, 0.99].map((q) => {
    const at = (name: string) => +quantile(took[name]!, q).toFixed(1);
    return {
      name: `a call of a frozen function, p${q * 100}`,
      unit: "ms",
      value: at("frozen"),
      peers: { "of one awake": at("awake"), "frozen by containerd": at("paused"), "of a stopped one": at("stopped") },
    };
  });
}

async function firstCalls(world: World, call: Call): Promise<Measurement[]> {
  const all = (name: string) => timed(() => Promise.all(Array.from({ length: burst }, () => call(name))));
  await all("awake"); // opens the connections
  await asleep(world, "frozen");
  const [frozen, awake] = [await all("frozen"), await all("awake")];
  const peers = { "of one awake": Math.round(awake) };
  return [
    { name: `${burst} first calls at once, until all are answered`, unit: "ms", value: Math.round(frozen), peers },
  ];
}

async function manyFunctions(world: World, call: Call): Promise<Measurement[]> {
  const names = Array.from({ length: many }, (_, i) => `many-${i}`);
  for (const name of names) await deploy(world, name, "5s", {});
  const waits: number[] = [];
  const callAll = () => timed(() => Promise.all(names.map(async (name) => waits.push(await timed(() => call(name))))));
  await callAll();
  const froze = await timed(() => Promise.all(names.map((name) => asleep(world, name))));
  waits.length = 0;
  const woke = await callAll();
  waits.length = 0;
  const again = await callAll();
  return [
    { name: `${many} idle functions (5 s), until all are frozen`, unit: "ms", value: Math.round(froze), peers: {} },
    {
      name: `${many} frozen functions called at once, until all have answered`,
      unit: "ms",
      value: Math.round(woke),
      peers: { awake: Math.round(again) },
    },
  ];
}
