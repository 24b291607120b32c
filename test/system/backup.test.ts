/** A backup of a running napd; its state is lost; a restore brings the functions back. */
import assert from "node:assert/strict";
import { rm, stat } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { webImage } from "../support/images.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

suite("backup and restore", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  let file: string;

  before(async () => {
    world = up.use(await openWorld());
    file = `${world.dir}/backup.tgz`;
    await world.start({ "images.pull_policy": "Never" });
    for (const name of ["web", "late"])
      await world.import(await webImage(`${world.dir}/${name}.tar`, `docker.io/library/${name}:1`, `${name}\n`));
    await world.api("POST", "/system/secrets", { name: "key", value: "from the backup" });
    const body = { service: "web", image: "web:1", secrets: ["key"] };
    const answer = await world.api("POST", "/system/functions", body);
    assert.equal(answer.status, 202, answer.text);
  });
  after(() => up.disposeAsync());

  const start = () => world.start({ "images.pull_policy": "Never" });
  const text = async (path: string) => (await world.call(path)).text;
  const functions = async () =>
    JSON.parse((await world.api("GET", "/system/functions")).text).map((f: { name: string }) => f.name);
  const fails = (args: string[], why: RegExp) =>
    assert.rejects(world.command(args), (e: { stderr: string }) => why.test(e.stderr));

  test("a running napd is backed up, and cannot be restored over", async () => {
    const [{ stderr }] = await Promise.all([world.command(["backup", file]), world.call("/function/web")]);
    assert.match(stderr, /1 functions, 1 secrets/);
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    await fails(["restore", file], /another napd runs with paths\.data/);
    assert.equal(await text("/function/web"), "web\n");
  });

  test("with the state lost, a restore brings functions, secrets and the password back", async () => {
    await world.napd().stop();
    await rm(world.paths.data, { recursive: true });
    await world.command(["restore", file]);
    await start();
    await eventually(
      () => world.call("/function/web/cgi-bin/say?key"),
      (answer) => answer.text === "from the backup",
    );
    assert.deepEqual(await functions(), ["web"]);
  });

  test("over newer state it wants --force; then what came later goes, and its containers with it", async () => {
    assert.equal((await world.api("POST", "/system/functions", { service: "late", image: "late:1" })).status, 202);
    await world.api("PUT", "/system/secrets", { name: "key", value: "changed" });
    await world.napd().stop();
    await fails(["restore", file], /holds state already, which --force replaces/);
    // killed with the new state half in place: the next start finishes it
    const env = { NAPD_FAILPOINTS: "restore.secrets=exit" };
    await assert.rejects(world.command(["restore", "--force", file], env));
    await start();
    await eventually(
      () => world.call("/function/web/cgi-bin/say?key"),
      (answer) => answer.text === "from the backup",
    );
    assert.deepEqual(await functions(), ["web"]);
    assert.deepEqual(
      (await world.traces()).filter((t) => /^container .*late/.test(t)),
      [],
    );
  });
});
