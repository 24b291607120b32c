/** `npm run bench -- NAME… [--json FILE]`: the named measurements, all of them without a name. */
import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { churn } from "./churn.ts";
import { coldStart } from "./cold-start.ts";
import { deploy } from "./deploy.ts";
import { freezeRaceBench } from "./freeze-race.ts";
import { gateway } from "./gateway.ts";
import { gatewayMemory } from "./gateway-memory.ts";
import type { Bench, Measurement } from "./measure.ts";
import { napStart } from "./nap.ts";
import { queue } from "./queue.ts";
import { queueFairness } from "./queue-fairness.ts";
import { queueKills } from "./queue-kills.ts";
import { scaleOut } from "./scale-out.ts";
import { up } from "./up.ts";
import { updatesUnderLoad } from "./updates.ts";
import { wake } from "./wake.ts";
import { watchdog } from "./watchdog.ts";
import { watchdogAbuse } from "./watchdog-abuse.ts";

const benches: Record<string, Bench> = {
  churn,
  "cold-start": coldStart,
  deploy,
  "freeze-race": freezeRaceBench,
  gateway,
  "gateway-memory": gatewayMemory,
  nap: napStart,
  queue,
  "queue-fairness": queueFairness,
  "queue-kills": queueKills,
  "scale-out": scaleOut,
  up,
  updates: updatesUnderLoad,
  wake,
  watchdog,
  "watchdog-abuse": watchdogAbuse,
};

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  options: { json: { type: "string" } },
  allowPositionals: true,
});
const unknown = positionals.find((name) => !Object.hasOwn(benches, name));
if (unknown !== undefined) {
  console.error(`napd: there is no bench ${unknown}; there are ${Object.keys(benches).join(", ")}`);
  process.exit(2);
}
const results: Measurement[] = [];
for (const name of positionals.length > 0 ? positionals : Object.keys(benches)) {
  console.error(`napd: measuring ${name} …`);
  results.push(...(await benches[name]!()));
}
console.table(
  Object.fromEntries(
    results.map(({ name, value, unit, peers }) => [
      name,
      {
        napd: `${value} ${unit}`,
        ...Object.fromEntries(Object.entries(peers).map(([peer, v]) => [peer, `${v} ${unit}`])),
      },
    ]),
  ),
);
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(results, null, 2)}\n`);
