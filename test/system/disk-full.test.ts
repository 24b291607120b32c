/** A full disk: what is asked for then fails with the reason and changes nothing, and works when there is room again. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, open, rm } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { webImage } from "../support/images.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const run = promisify(execFile);

suite("a full disk", () => {
  const up = new AsyncDisposableStack();
  let world: World;

  before(async () => {
    world = up.use(await openWorld());
    for (const dir of [world.paths.data, world.paths.run]) {
      await mkdir(dir, { recursive: true });
      await run("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", dir]);
      up.defer(async () => void (await run("umount", ["--lazy", dir])));
    }
    await world.start({ "images.pull_policy": "Never", "images.disk_reserve": "0", "functions.grace": "50ms" });
    for (const text of ["old", "new"])
      await world.import(await webImage(`${world.dir}/${text}.tar`, `docker.io/library/${text}:1`, `${text}\n`));
    assert.equal((await deploy("POST", "web", "old")).status, 202);
  });
  after(() => up.disposeAsync());

  const deploy = (method: string, service: string, image: string, more = {}) =>
    world.api(method, "/system/functions", { service, image: `${image}:1`, ...more });
  const status = async () => JSON.parse((await world.api("GET", "/system/function/web")).text);

  /** Of replicas; images that were fetched stay as a cache. */
  const traces = async () => (await world.traces()).filter((t) => !/^(snapshot sha256|content|image)/.test(t));

  /** Takes all the room there is on the file system of `dir` until it is disposed of. */
  async function fill(dir: string): Promise<AsyncDisposable> {
    const file = `${dir}/ballast`;
    await using handle = await open(file, "w");
    for (const size of [64 * 1024, 4096])
      for (let full = false; !full; )
        await handle.write(Buffer.alloc(size)).catch((e) => {
          assert.equal(e.code, "ENOSPC");
          full = true;
        });
    return { [Symbol.asyncDispose]: () => rm(file) };
  }

  test("of what is deployed: nothing can be changed, everything runs on, and then it can", async () => {
    const [was, had] = [await status(), await traces()];
    {
      await using _ = await fill(world.paths.data);
      const attempts = {
        "an update": () => deploy("PUT", "web", "new"),
        "a new function": () => deploy("POST", "other", "new"),
        "a new scale": () => world.api("POST", "/system/scale-function/web", { serviceName: "web", replicas: 2 }),
        "a delete": () => world.api("DELETE", "/system/functions", { functionName: "web" }),
      };
      for (const [what, attempt] of Object.entries(attempts)) {
        const answer = await attempt();
        assert.equal(answer.status, 507, `${what}: ${answer.text}`);
        assert.match(answer.text, /no space is left .* what is deployed/, what);
      }
      assert.equal((await world.call("/function/web")).text, "old\n");
    }
    assert.deepEqual({ ...(await status()), invocationCount: 0 }, { ...was, invocationCount: 0 });
    assert.deepEqual(await traces(), had);
    assert.equal((await deploy("PUT", "web", "new")).status, 202);
    assert.equal((await world.call("/function/web")).text, "new\n");
  });

  test("of what a replica needs while it runs: the old version serves on, and a new function comes up by itself", async () => {
    assert.equal((await world.api("POST", "/system/secrets", { name: "key", value: "x".repeat(100_000) })).status, 202);
    const secrets = { secrets: ["key"] };
    {
      await using _ = await fill(world.paths.run);
      for (const [method, service] of [
        ["PUT", "web"],
        ["POST", "other"],
      ] as const) {
        const answer = await deploy(method, service, "old", secrets);
        assert.equal(answer.status, 507, answer.text);
        assert.match(answer.text, /no space is left .* replica/);
      }
      assert.equal((await world.call("/function/web")).text, "new\n");
      assert.match((await status()).reason, /update failed.*no space is left/);
    }
    await eventually(
      () => world.call("/function/other"),
      (answer) => answer.status === 200,
      40_000,
    );
    assert.equal((await deploy("PUT", "web", "old", secrets)).status, 202);
    assert.equal((await world.call("/function/web")).text, "old\n");
  });
});
