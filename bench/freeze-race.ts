import { webImage } from "../test/support/images.ts";
import { freezeRace } from "../test/support/sleep.ts";
import { openWorld } from "../test/support/world.ts";
import { type Measurement, quantile } from "./measure.ts";

const idleMs = 20;
const callsEach = 2500;

/**
 * 10,000 calls at random moments around the one at which a function is frozen, of four functions, each called by one
 * caller at a time: who was frozen with its request in flight would never answer. Fails when any call does.
 */
export async function freezeRaceBench(): Promise<Measurement[]> {
  await using world = await openWorld();
  await world.start({ "functions.grace": "50ms", "images.pull_policy": "Never" });
  await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
  const labels = { "com.openfaas.scale.zero-duration": `${idleMs}ms` };
  const deploy = async (service: string, more: object = {}) => {
    const { status, text } = await world.api("POST", "/system/functions", { service, image: "web:1", labels, ...more });
    if (status !== 202) throw new Error(`deploy answered ${status}: ${text}`);
  };
  await deploy("plain");
  await deploy("slow");
  await deploy("forks", { envProcess: "cat" });
  await deploy("files", {
    envVars: { mode: "static", static_path: "/www" },
    annotations: { "napd.watchdog": "inject" },
  });
  const { calls, asleep, failures, latency } = await freezeRace(
    world,
    [
      { path: "plain", expect: "hello\n" },
      { path: "slow/cgi-bin/slow?0.03", expect: "slept\n" },
      { path: "forks", expect: "body", body: "body" },
      { path: "files/", expect: "hello\n" },
    ],
    { idleMs: 1.5 * idleMs, calls: callsEach },
  );
  if (failures.length > 0)
    throw new Error(`${failures.length} of ${calls} calls failed:\n${failures.slice(0, 10).join("\n")}`);
  const p = (q: number) => +quantile(latency.asleep, q).toFixed(1);
  const beside = (q: number) => ({ "awake when called": +quantile(latency.awake, q).toFixed(1) });
  return [
    {
      name: "calls around the freeze point",
      unit: "calls",
      value: calls,
      peers: { "of a function asleep": asleep, failed: 0 },
    },
    { name: "their latency, asleep when called, p50", unit: "ms", value: p(0.5), peers: beside(0.5) },
    { name: "their latency, asleep when called, p99", unit: "ms", value: p(0.99), peers: beside(0.99) },
  ];
}
