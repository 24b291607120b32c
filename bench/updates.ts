import { startLoad } from "../test/support/steady-load.ts";
import { openWorld } from "../test/support/world.ts";
import { upstreamImage } from "./images.ts";
import { type Measurement, quantile, timed } from "./measure.ts";

const updates = 100;
const perSecond = 500;

/** Updates of a function one after the other while it is called all the time. Fails when a single request failed. */
export async function updatesUnderLoad(): Promise<Measurement[]> {
  await using world = await openWorld();
  await world.start({ "functions.grace": "5s", "images.pull_policy": "Never" });
  await world.import(await upstreamImage(world.dir, "docker.io/library/web:1"));
  const put = async (method: string, n: number) => {
    const body = { service: "web", image: "web:1", envVars: { N: String(n) } };
    const { status, text } = await world.api(method, "/system/functions", body);
    if (status !== 202) throw new Error(`update ${n} was answered with ${status}: ${text}`);
  };
  await put("POST", 0);
  const load = startLoad(`${world.url}/function/web`, perSecond);
  const took: number[] = [];
  for (let n = 1; n <= updates; n++) took.push(await timed(() => put("PUT", n)));
  const { sent, failed, took: answered } = await load.stop();
  if (failed.length > 0) throw new Error(`${failed.length} of ${sent} requests failed, the first: ${failed[0]}`);
  const one = (name: string, unit: string, value: number) => ({ name, unit, value: +value.toFixed(1), peers: {} });
  return [
    one(`${updates} updates under ${perSecond} requests/s, requests`, "", sent),
    one("of which failed", "", failed.length),
    one("an update, p50", "ms", quantile(took, 0.5)),
    one("an update, p90", "ms", quantile(took, 0.9)),
    one("a request meanwhile, p50", "ms", quantile(answered, 0.5)),
    one("a request meanwhile, p99", "ms", quantile(answered, 0.99)),
  ];
}
