import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { baseLayer, writeOciArchive } from "../scripts/oci-image.ts";
import { eventually, openWorld } from "../test/support/world.ts";
import { type Measurement, summary, timed } from "./measure.ts";

const rounds = 12;
const entry = `${import.meta.dirname}/../src/nap.ts`;

/**
 * From an edit to a call that is answered anew: by `nap up` started afresh and by a `nap dev` that runs, for a script,
 * and for one beside some hundred files. `unchanged` is `nap up` with nothing to do.
 */
export async function up(): Promise<Measurement[]> {
  await using world = await openWorld();
  await world.start({ "functions.grace": "50ms" });
  const file = `${world.dir}/base.tar`;
  await writeOciArchive(file, { ref: "docker.io/library/alpine:3", layers: [await baseLayer()] });
  await world.import(file);
  const password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
  const nap = (...args: string[]) => {
    const env = { ...process.env, HOME: world.dir, OPENFAAS_URL: world.url };
    return spawn(process.execPath, [entry, ...args], { cwd: world.dir, env, stdio: ["ignore", "ignore", "inherit"] });
  };
  const done = async (...args: string[]) => {
    const [code] = await once(nap(...args), "exit");
    if (code !== 0) throw new Error(`nap ${args.join(" ")} ended with ${code}`);
  };
  await done("login", "--password", password);

  let edits = 0;
  const edit = async (folder: string) => {
    await writeFile(`${world.dir}/${folder}/main.sh`, `echo ${++edits}\n`);
    return `${edits}\n`;
  };
  const answered = (name: string, text: string) =>
    eventually(
      () => world.call(`/function/${name}`),
      (answer) => answer.text === text,
    );
  const took = {
    script: [] as number[],
    "with 500 files": [] as number[],
    unchanged: [] as number[],
    dev: [] as number[],
  };
  await mkdir(`${world.dir}/one`);
  await mkdir(`${world.dir}/many`);
  for (let i = 0; i < 500; i++) await writeFile(`${world.dir}/many/${i}.txt`, String(i).repeat(2_000));
  const start = await edit("one");
  await done("up", "one");
  await answered("one", start);
  await edit("many");
  await done("up", "many");

  for (let i = 0; i < rounds; i++) {
    for (const [what, folder] of [
      ["script", "one"],
      ["with 500 files", "many"],
    ] as const)
      took[what].push(
        await timed(async () => {
          const text = await edit(folder);
          await done("up", folder);
          await answered(folder, text);
        }),
      );
    took.unchanged.push(await timed(() => done("up", "one")));
  }
  const dev = nap("dev", "one");
  await answered("one", await edit("one"));
  for (let i = 0; i < rounds; i++) took.dev.push(await timed(async () => answered("one", await edit("one"))));
  dev.kill("SIGINT");
  await once(dev, "exit");
  return Object.entries(took).flatMap(([what, nap]) => summary(`edit to answered call, ${what}`, { nap }));
}
