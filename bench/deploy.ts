import { webImage } from "../test/support/images.ts";
import { openWorld } from "../test/support/world.ts";
import { type Measurement, summary, timed } from "./measure.ts";

const rounds = 15;

/** A deploy, an update and a removal through the API with the image present, each until napd's answer says it is done. */
export async function deploy(): Promise<Measurement[]> {
  await using world = await openWorld();
  await world.start({ "functions.grace": "50ms", "images.pull_policy": "Never" });
  for (const n of [1, 2])
    await world.import(await webImage(`${world.dir}/web.tar`, `docker.io/library/web:${n}`, `${n}\n`));
  const took = { create: [] as number[], update: [] as number[], remove: [] as number[] };
  const change = async (kind: keyof typeof took, method: string, body: object) => {
    took[kind].push(
      await timed(async () => {
        const { status, text } = await world.api(method, "/system/functions", body);
        if (status !== 202) throw new Error(`${method} answered ${status}: ${text}`);
      }),
    );
  };
  for (let i = 0; i < rounds; i++) {
    await change("create", "POST", { service: "web", image: "web:1" });
    await change("update", "PUT", { service: "web", image: "web:2" });
    await change("remove", "DELETE", { functionName: "web" });
  }
  return Object.entries(took).flatMap(([kind, napd]) => summary(`${kind} a function`, { napd }));
}
