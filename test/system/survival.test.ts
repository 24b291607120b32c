/** What a function lives through: the death of napd, of containerd, of its own process, and of the machine. */
import assert from "node:assert/strict";
import { readFile, rm } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { webImage } from "../support/images.ts";
import { openRegistry } from "../support/registry.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

suite("survival", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  let clean: string[];

  before(async () => {
    world = up.use(await openWorld());
    await world.start({ "images.pull_policy": "Never" });
    clean = await world.traces();
    await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "alive\n"));
    const answer = await world.api("POST", "/system/functions", { service: "web", image: "web:1" });
    assert.equal(answer.status, 202, answer.text);
  });
  after(() => up.disposeAsync());

  /** Of the only process that serves; an older one may still be on its way out. */
  async function pid(): Promise<string> {
    const running = async () => [...(await world.ctr("tasks", "list")).matchAll(/^web\.\S+\s+(\d+)\s+RUNNING/gm)];
    return (await eventually(running, (tasks) => tasks.length === 1))[0]![1]!;
  }

  async function assertAlive(): Promise<void> {
    const answer = await world.call("/function/web");
    assert.deepEqual([answer.status, answer.text], [200, "alive\n"]);
  }

  test("napd killed: the function runs on, the next napd adopts it and the gateway answers", async () => {
    const before = await pid();
    await world.napd().kill9();
    assert.equal(await pid(), before);
    await world.start({ "images.pull_policy": "Never" });
    await assertAlive();
    assert.equal(await pid(), before);
  });

  test("napd stopped in order: the function runs on and is adopted", async () => {
    const before = await pid();
    const exit = await world.napd().stop(30_000);
    assert.equal(exit.code, 0);
    assert.equal(await pid(), before);
    await world.start({ "images.pull_policy": "Never" });
    await assertAlive();
    assert.equal(await pid(), before);
  });

  test("containerd killed and started again: the function answers all along, and deploys work afterwards", async () => {
    const before = await pid();
    await world.containerd.kill9();
    await assertAlive();
    await world.containerd.start();
    await assertAlive();
    assert.equal(await pid(), before);
    const answer = await world.api("PUT", "/system/functions", { service: "web", image: "web:1", envVars: { X: "1" } });
    assert.equal(answer.status, 202, answer.text);
    await assertAlive();
  });

  test("the function's process dies: another one takes its place", async () => {
    const before = await pid();
    process.kill(Number(before), "SIGKILL");
    await eventually(pid, (now) => now !== before);
    await assertAlive();
  });

  test("its shim is killed: another one takes its place, and nothing of the first is left", async () => {
    const before = await pid();
    const expected = (await world.traces()).length;
    process.kill(await parentOf(before), "SIGKILL");
    await eventually(pid, (now) => now !== before);
    await assertAlive();
    await eventually(
      () => world.traces(),
      (found) => found.length === expected,
    );
  });

  test("the function's process dies while containerd is down: the loss is found afterwards", async () => {
    const before = await pid();
    await world.containerd.kill9();
    process.kill(Number(before), "SIGKILL");
    await world.containerd.start();
    await eventually(pid, (now) => now !== before);
    await eventually(
      () => world.call("/function/web"),
      (answer) => answer.status === 200,
    );
  });

  test("the function's process dies while napd is down: the next napd starts it again", async () => {
    const before = await pid();
    await world.napd().kill9();
    process.kill(Number(before), "SIGKILL");
    await world.start({ "images.pull_policy": "Never" });
    await assertAlive();
  });

  test("containerd loses all it had while functions run: everything comes back from the archive's registry", async () => {
    await using registry = await openRegistry({ dir: `${world.dir}/registry` });
    const image = await registry.push(
      await webImage(`${world.dir}/far.tar`, "docker.io/library/far:1", "far\n"),
      "far:1",
    );
    const body = { service: "far", image, annotations: { "napd.pull-policy": "Always" } };
    assert.equal((await world.api("POST", "/system/functions", body)).status, 202);
    assert.equal((await world.api("DELETE", "/system/functions", { functionName: "web" })).status, 202);
    await world.containerd.kill9();
    await rm(`${world.dir}/c/containerd`, { recursive: true });
    await world.containerd.start();
    await eventually(
      () => world.call("/function/far"),
      (answer) => answer.status === 200 && answer.text === "far\n",
    );
    const running = (await world.ctr("tasks", "list")).match(/RUNNING/g);
    assert.equal(running?.length, 1);
    assert.equal((await world.api("DELETE", "/system/functions", { functionName: "far" })).status, 202);
    await world.ctr("images", "remove", "--sync", image);
    await world.import(`${world.dir}/web.tar`);
    assert.equal((await world.api("POST", "/system/functions", { service: "web", image: "web:1" })).status, 202);
  });

  test("the machine starts anew without /run: the function answers with no manual step", async () => {
    await world.reboot();
    await world.start({ "images.pull_policy": "Never" });
    await assertAlive();
    const listed = JSON.parse((await world.api("GET", "/system/functions")).text);
    assert.equal(listed.length, 1);
  });

  test("after all this, deleting the function leaves nothing", async () => {
    assert.equal((await world.api("DELETE", "/system/functions", { functionName: "web" })).status, 202);
    await world.ctr("images", "remove", "--sync", "docker.io/library/web:1");
    assert.deepEqual(await world.traces(), clean);
  });
});

async function parentOf(pid: string): Promise<number> {
  return Number(/^PPid:\s+(\d+)$/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))![1]);
}
