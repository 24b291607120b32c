/** From folders to answered calls without any builder: nap up and nap dev against a real napd. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { baseLayer, librariesOf, writeOciArchive } from "../../scripts/oci-image.ts";
import { type Ran, nap as runNap } from "../support/nap.ts";
import { type Answer, eventually, openWorld, type World } from "../support/world.ts";

const root = `${import.meta.dirname}/../..`;

suite("functions without a builder", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  let cwd: string;

  before(async () => {
    world = up.use(await openWorld());
    await world.start({ "functions.grace": "50ms" });
    cwd = `${world.dir}/work`;
    await mkdir(cwd);
    const password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
    await nap(["login", "--password", password]);
    // what the templates are based on, made of this machine's programs
    const node = process.execPath;
    const layers = [
      await baseLayer(),
      [{ path: "/bin/bash", file: "/bin/bash", mode: 0o755 }, ...(await librariesOf("/bin/bash"))],
      [{ path: "/usr/bin/node", file: node, mode: 0o755 }, ...(await librariesOf(node))],
    ];
    for (const [ref, count] of [
      ["alpine:3", 1],
      ["busybox:1", 1],
      ["bash:5.3", 2],
      ["node:24-alpine", 3],
    ] as const) {
      const file = `${world.dir}/base.tar`;
      await writeOciArchive(file, { ref: `docker.io/library/${ref}`, layers: layers.slice(0, count), cmd: ["sh"] });
      await world.import(file);
    }
  });
  after(() => up.disposeAsync());

  const run = (args: string[], more = {}): Promise<Ran> =>
    runNap({ home: world.dir, cwd }, args, { env: { OPENFAAS_URL: world.url }, ...more });

  async function nap(args: string[]): Promise<Ran> {
    const ran = await run(args);
    assert.equal(ran.exit, 0, `nap ${args.join(" ")}: ${ran.stdout}${ran.stderr}`);
    return ran;
  }

  async function folder(name: string, files: Record<string, string>): Promise<string> {
    await mkdir(`${cwd}/${name}`, { recursive: true });
    for (const [file, text] of Object.entries(files)) await writeFile(`${cwd}/${name}/${file}`, text, { mode: 0o755 });
    return name;
  }

  const call = (name: string, body?: string): Promise<Answer> =>
    world.call(`/function/${name}`, body === undefined ? {} : { method: "POST", body });

  test("a folder with a script", async () => {
    await folder("count", { "count.sh": "#!/bin/sh\nwc -c\n" });
    const first = await nap(["up", "count", "-v"]);
    assert.match(first.stderr, /count: count.sh: run by sh for each call.* on docker.io\/library\/alpine:3/);
    assert.match(first.stderr, /^count +ready .*\/function\/count \(created/m);
    assert.equal((await call("count", "12345")).text.trim(), "5");
    console.log(first.stderr);
    const second = await nap(["up", "count", "-v"]);
    console.log(second.stderr);
    await folder("count", { "count.sh": "#!/bin/sh\nrev\n" });
    const third = await nap(["up", "count", "-v"]);
    console.log(third.stderr);
    assert.equal((await call("count", "12345")).text.trim(), "54321");
  });
});
