/** `systemctl restart napd` with napd.socket: callers notice nothing of it. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { watchdogImage } from "../support/images.ts";
import { holdingSocket } from "../support/socket-holder.ts";
import { startLoad } from "../support/steady-load.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

suite("a napd whose socket somebody else holds", () => {
  let world: World;
  let pidFile: string;
  before(async () => {
    world = await openWorld();
    pidFile = `${world.dir}/pid`;
    const env = ["mode=static", "static_path=/etc"];
    await world.import(await watchdogImage(`${world.dir}/f.tar`, "docker.io/library/f:1", "", { env }));
    await world.start({ "images.pull_policy": "Never" }, {}, holdingSocket(world.port, pidFile));
    assert.equal((await world.api("POST", "/system/functions", { service: "f", image: "f:1" })).status, 202);
  });
  after(() => world[Symbol.asyncDispose]());

  const pid = async () => Number(await readFile(pidFile, "utf8"));
  const starts = async () => (await world.log()).split(`"napd is up"`).length - 1;

  /** Resolves when the next one answers. */
  async function restart(): Promise<void> {
    const before = await starts();
    process.kill(await pid(), "SIGTERM");
    await eventually(starts, (count) => count > before, 60_000);
  }

  test("no request is lost in a restart, neither on kept connections nor on fresh ones", async () => {
    const url = `${world.url}/function/f/passwd`;
    const kept = startLoad(url, 40);
    const seldom = Array.from({ length: 5 }, () => startLoad(url, 2));
    const fresh = startLoad(url, 20, true);
    let failure: unknown;
    for (let i = 0; i < 2 && failure === undefined; i++)
      await restart().catch((e) => {
        failure = e;
      });
    const [onKept, onFresh, ...others] = await Promise.all([kept.stop(), fresh.stop(), ...seldom.map((l) => l.stop())]);
    if (failure !== undefined) throw failure;
    for (const result of [onKept, onFresh, ...others]) {
      assert.deepEqual(result.failed, []);
      assert.ok(result.sent > 0);
    }
  });

  test("a gateway.listen that says otherwise is told of in the log", async () => {
    assert.doesNotMatch(await world.log(), /the socket unit says/);
    await world.napd().stop(60_000);
    await world.start({ "gateway.listen": "127.0.0.1:1" }, {}, holdingSocket(world.port, pidFile));
    assert.match(await world.log(), /"gateway.listen":"127.0.0.1:1".*the socket unit says where to listen/);
  });
});
