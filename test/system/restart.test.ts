/** What systemd does with napd: `systemctl restart` with napd.socket, `systemctl reload`, and what it is told. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { makeSelfSigned } from "../support/certificates.ts";
import { freePort } from "../support/free-port.ts";
import { watchdogImage } from "../support/images.ts";
import { type NotifyReceiver, openNotifyReceiver } from "../support/notify-receiver.ts";
import { holdingSocket } from "../support/socket-holder.ts";
import { startLoad } from "../support/steady-load.ts";
import { tmpDir } from "../support/tmp.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const run = promisify(execFile);

/** The words before a command that leave it the privileges that the unit leaves it. */
async function confined(): Promise<string[]> {
  const unit = await readFile(`${import.meta.dirname}/../../systemd/napd.service`, "utf8");
  const kept = [...unit.matchAll(/^CapabilityBoundingSet=(.*)$/gm)].flatMap(([, names]) => names!.split(" "));
  assert.ok(kept.length > 0);
  const set = ["-all", ...kept.map((name) => name.toLowerCase().replace(/^cap_/, "+"))].join();
  return ["setpriv", "--bounding-set", set, "--no-new-privs", "--"];
}

suite("a napd whose socket somebody else holds", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  let config: string;
  let pidFile: string;
  let manager: NotifyReceiver;
  before(async () => {
    const { path } = up.use(await tmpDir());
    config = `${path}/napd.ini`;
    pidFile = `${path}/pid`;
    await writeFile(config, "");
    manager = up.use(await openNotifyReceiver(`${path}/notify`));
    world = up.use(await openWorld({ config }));
    const env = ["mode=static", "static_path=/etc"];
    await world.import(await watchdogImage(`${world.dir}/f.tar`, "docker.io/library/f:1", "", { env }));
    const environment = { NOTIFY_SOCKET: `${path}/notify`, WATCHDOG_USEC: "1000000" };
    const by = [...(await confined()), ...holdingSocket(world.port, pidFile)];
    await world.start({ "images.pull_policy": "Never" }, environment, by);
    assert.equal((await world.api("POST", "/system/functions", { service: "f", image: "f:1" })).status, 202);
  });
  after(() => up.disposeAsync());

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

  test("systemd is told of starts, stops and that it lives on, and how many functions there are", async () => {
    await manager.until((message) => message === "STATUS=1 function");
    await manager.until((message) => message === "WATCHDOG=1");
    const changes = manager.messages.filter((message) => /^(READY|STOPPING)=1$/.test(message));
    assert.deepEqual(changes.slice(0, 5), ["READY=1", "STOPPING=1", "READY=1", "STOPPING=1", "READY=1"]);
    assert.equal(manager.pids.at(-1), await pid());
  });

  /** Resolves with the line that the reload ends with. */
  async function reload(settings: string): Promise<string> {
    const ends = async () =>
      (await world.log()).split("\n").filter((line) => /settings (could not be )?reloaded/.test(line));
    const before = (await ends()).length;
    await writeFile(config, settings);
    process.kill(await pid(), "SIGHUP");
    return (await eventually(ends, (lines) => lines.length > before)).at(-1)!;
  }
  const post = () => world.call("/function/f/passwd", { method: "POST", body: "more than ten bytes" });

  test("a reload takes up what is live, and names what takes a restart", async () => {
    assert.notEqual((await post()).status, 413);
    const said = await reload("[gateway]\nmax_body = 10\n[cron]\nenabled = false\n");
    assert.match(said, /"changed":\["gateway.max_body"\]/);
    await eventually(world.log, (log) => /"settings":\["cron.enabled"\].*need a restart/.test(log));
    assert.equal((await post()).status, 413);
    const told = async () => manager.messages.filter((message) => /^(READY|RELOADING)=1$/.test(message)).slice(-2);
    await eventually(told, (messages) => messages.join() === "RELOADING=1,READY=1");
  });

  test("a reload of settings that are wrong says why, and changes nothing", async () => {
    const said = await reload("[gateway]\nmax_body = much\n[log]\nlevel = silent\n");
    assert.match(said, /gateway.max_body = much.*amount of bytes.*nothing has changed/);
    assert.equal((await post()).status, 413);
    assert.match(await reload(""), /"changed":\["gateway.max_body"\]/);
    assert.notEqual((await post()).status, 413);
  });

  test("a containerd that does not answer is told in the status, and no reason to end", async () => {
    await world.containerd.kill9();
    await manager.until((message) => message === "STATUS=1 function; containerd does not answer");
    assert.equal((await world.call("/function/f/passwd")).status, 200);
    await world.containerd.start();
    await eventually(
      async () => manager.messages.findLast((message) => message.startsWith("STATUS=")),
      (last) => last === "STATUS=1 function",
    );
  });

  test("another start: gateway.listen that says otherwise is told of, and HTTPS is served beside", async () => {
    await world.napd().stop(60_000);
    const tls = await makeSelfSigned(world.dir, "one");
    const next = await makeSelfSigned(world.dir, "two");
    const port = await freePort();
    const settings = {
      "gateway.listen": "127.0.0.1:1",
      "tls.listen": `127.0.0.1:${port}`,
      "tls.certificate": tls.certificate,
      "tls.key": tls.key,
    };
    await world.start(settings, {}, holdingSocket(world.port, pidFile));
    assert.match(await world.log(), /"gateway.listen":"127.0.0.1:1".*the socket unit says where to listen/);
    const curl = (ca: string) =>
      run("curl", ["-sS", "--cacert", ca, `https://127.0.0.1:${port}/function/f/passwd`]).then(({ stdout }) => stdout);
    assert.match(await curl(tls.certificate), /^root:/);
    for (const what of ["certificate", "key"] as const) await copyFile(next[what], tls[what]);
    process.kill(await pid(), "SIGHUP");
    await eventually(world.log, (log) => /certificate loaded/.test(log));
    assert.match(await curl(next.certificate), /^root:/);
  });
});
