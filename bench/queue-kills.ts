import { setTimeout as delay } from "node:timers/promises";
import { webImage } from "../test/support/images.ts";
import { killUnderLoad } from "../test/support/kills.ts";
import { openWorld } from "../test/support/world.ts";
import type { Measurement } from "./measure.ts";

const kills = 50;
/** Ms between napd's answering again and its next kill, at random up to this. */
const longestMs = 3000;

/** `kill -9` of napd at random under asynchronous calls. Fails when one that got its 202 never ran. */
export async function queueKills(): Promise<Measurement[]> {
  await using world = await openWorld();
  const settings = { "images.pull_policy": "Never" };
  await world.start(settings);
  await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
  const { status, text } = await world.api("POST", "/system/functions", { service: "web", image: "web:1" });
  if (status !== 202) throw new Error(`deploy answered ${status}: ${text}`);
  const { accepted, lost, repeated, unanswered } = await killUnderLoad(world, {
    ...{ path: "web/cgi-bin/log", name: "web", kills, settings },
    wait: () => delay(Math.random() * longestMs),
  });
  if (lost.length > 0) throw new Error(`${lost.length} of ${accepted} calls never ran, such as ${lost[0]}`);
  const one = (name: string, value: number) => ({ name, unit: "", value, peers: {} });
  return [
    one(`${kills} kills of napd, calls that got their 202`, accepted),
    one("of which never ran", lost.length),
    one("runs beyond the first one of a call", repeated),
    one("runs of calls that were cut off before their 202", unanswered),
  ];
}
