/** Functions that nobody calls, on a real kernel: frozen, woken, stopped, and never noticed. */
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { webImage } from "../support/images.ts";
import { freezeRace, freezerStates } from "../support/sleep.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const settings = { "images.pull_policy": "Never", "functions.grace": "200ms" };

suite("sleep and wake", () => {
  const up = new AsyncDisposableStack();
  let world: World;

  before(async () => {
    world = up.use(await openWorld());
    await world.start(settings);
    await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
  });
  after(() => up.disposeAsync());

  async function deploy(service: string, more: object = {}, idle = "100ms"): Promise<void> {
    const labels = { "com.openfaas.scale.zero-duration": idle };
    const answer = await world.api("POST", "/system/functions", { service, image: "web:1", labels, ...more });
    assert.equal(answer.status, 202, answer.text);
  }

  async function status(name: string): Promise<{ state: string; replicas: number; availableReplicas: number }> {
    return JSON.parse((await world.api("GET", `/system/function/${name}`)).text);
  }

  async function asleep(name: string): Promise<void> {
    await eventually(
      () => status(name),
      ({ state }) => state === "Asleep",
    );
    await eventually(
      () => freezerStates(world, name),
      (states) => states.length > 0 && states.every((s) => s === "frozen"),
    );
  }

  async function assertAnswers(name: string): Promise<void> {
    const answer = await world.call(`/function/${name}`);
    assert.deepEqual([answer.status, answer.text], [200, "hello\n"]);
  }

  async function remove(...names: string[]): Promise<void> {
    const removed = names.map((functionName) => world.api("DELETE", "/system/functions", { functionName }));
    for (const { status, text } of await Promise.all(removed)) assert.equal(status, 202, text);
  }

  const pid = async (name: string) =>
    new RegExp(`^${name}\\.\\S+\\s+(\\d+)\\s`, "m").exec(await world.ctr("tasks", "list"))?.[1];

  const thaws = async () => Number(/^napd_thaws_total (\d+)$/m.exec(await (await fetch(world.metricsUrl)).text())![1]);

  test("a function that nobody calls is frozen, and counts as available; a call finds the same process", async () => {
    await deploy("web");
    const before = await pid("web");
    await asleep("web");
    const { replicas, availableReplicas } = await status("web");
    assert.deepEqual([replicas, availableReplicas], [1, 1]);
    await assertAnswers("web");
    assert.equal(await pid("web"), before);
  });

  test("a thousand first calls at once are answered, all of them, after one thaw", async () => {
    // a server that takes them all: our watchdog, with busybox' files
    await deploy("files", {
      envVars: { mode: "static", static_path: "/www" },
      annotations: { "napd.watchdog": "inject" },
    });
    await asleep("files");
    const before = await thaws();
    const answers = await Promise.all(Array.from({ length: 1000 }, () => world.call("/function/files/")));
    assert.deepEqual(new Set(answers.map((a) => `${a.status} ${a.text}`)), new Set(["200 hello\n"]));
    assert.equal(await thaws(), before + 1);
    await remove("files");
  });

  test("a call that takes many times the idle time is not frozen: not while it waits, not while it streams", async () => {
    const slow = await world.call("/function/web/cgi-bin/slow?1");
    assert.deepEqual([slow.status, slow.text], [200, "slept\n"]);
    const upload = new ReadableStream({
      async start(body) {
        for (let i = 0; i < 5; i++) {
          body.enqueue(Buffer.from("piece"));
          await delay(150);
          assert.deepEqual(await freezerStates(world, "web"), ["awake"]);
        }
        body.close();
      },
    });
    const echo = await world.call("/function/web/cgi-bin/echo", {
      method: "POST",
      body: upload,
      headers: { "content-type": "text/plain" },
      ...{ duplex: "half" },
    });
    assert.equal(echo.status, 200, echo.text);
    await asleep("web");
  });

  test("called at random moments around the one at which it is frozen, it never fails", async () => {
    await deploy("forks", { envProcess: "cat" }, "20ms"); // with our watchdog, which keeps connections alive
    await deploy("plain", {}, "20ms");
    const functions = [
      { path: "forks", expect: "body", body: "body" },
      { path: "plain", expect: "hello\n" },
      { path: "plain/cgi-bin/slow?0.05", expect: "slept\n" }, // longer than the idle time, beside the quick ones
    ];
    const { failures, asleep, calls } = await freezeRace(world, functions, { idleMs: 25, calls: 60 });
    assert.deepEqual(failures, []);
    assert.ok(asleep > 0 && asleep < calls, `${asleep} of ${calls} calls came to one that slept`);
  });

  test("many functions wake at once", async () => {
    await Promise.all(["forks", "plain", "web"].map(asleep));
    await Promise.all(["plain", "web"].map(assertAnswers));
  });

  test("deleting, updating and scaling one that sleeps does not wait for it to wake by itself", async () => {
    await Promise.all(["forks", "plain", "web"].map(asleep));
    const body = { service: "plain", image: "web:1", envVars: { NEW: "1" } };
    const [updated] = await Promise.all([world.api("PUT", "/system/functions", body), remove("forks")]);
    assert.equal(updated.status, 202, updated.text);
    assert.match((await world.call("/function/plain/cgi-bin/info")).text, /^NEW=1$/m);
    await remove("plain");
  });

  test("scaled to 0 it sleeps at once, whatever its labels say, and a call wakes it", async () => {
    await deploy("awake", { labels: { "com.openfaas.scale.zero": "false" } });
    assert.equal((await world.api("POST", "/system/scale-function/awake", { replicas: 0 })).status, 202);
    const { replicas, availableReplicas } = await status("awake");
    assert.deepEqual([replicas, availableReplicas], [0, 0]);
    const before = await pid("awake");
    await asleep("awake");
    await assertAnswers("awake");
    assert.deepEqual([(await status("awake")).replicas, await pid("awake")], [1, before]);
  });

  test("after napd.stop-after it gives its memory back and stays deployed; a call starts it again", async () => {
    await deploy("stops", { annotations: { "napd.stop-after": "200ms" } });
    await eventually(
      () => world.ctr("containers", "list", "--quiet"),
      (list) => !list.includes("stops"),
    );
    const { state, replicas, availableReplicas } = await status("stops");
    assert.deepEqual([state, replicas, availableReplicas], ["Stopped", 1, 1]);
    const answers = await Promise.all(Array.from({ length: 50 }, () => world.call("/function/stops")));
    assert.ok(answers.every((a) => a.status === 200));
    await eventually(
      () => status("stops"),
      ({ state }) => state === "Stopped",
    );
  });

  test("a call that comes while it is being stopped does not wait for the end of the grace", async () => {
    await world.napd().kill9();
    await world.start({ ...settings, "functions.grace": "10m" });
    await deploy("stubborn", { annotations: { "napd.stop-after": "0s" } }); // busybox ignores SIGTERM
    await eventually(
      () => status("stubborn"),
      ({ state }) => state === "Stopped",
    );
    await assertAnswers("stubborn");
    await world.napd().kill9();
    await world.start(settings);
    await remove("stubborn");
  });

  test("napd killed: who slept sleeps on, who was stopped stays stopped, and both answer", async () => {
    await asleep("web");
    const before = await pid("web");
    await world.napd().kill9();
    await world.start(settings);
    assert.deepEqual([(await status("web")).state, await freezerStates(world, "web")], ["Asleep", ["frozen"]]);
    assert.equal((await status("stops")).state, "Stopped");
    await assertAnswers("web");
    await assertAnswers("stops");
    assert.equal(await pid("web"), before);
  });

  test("napd that stood still freezes nobody whose call waits in its socket", async () => {
    await assertAnswers("web");
    process.kill(world.napd().pid, "SIGSTOP");
    const calls = Array.from({ length: 20 }, () => world.call("/function/web/cgi-bin/slow?0.3"));
    await delay(500); // what is tried needs time to pass: several times the idle time
    process.kill(world.napd().pid, "SIGCONT");
    assert.deepEqual(new Set((await Promise.all(calls)).map((a) => a.text)), new Set(["slept\n"]));
    await remove("stops", "awake");
  });

  test("with containerd as the freezer it sleeps and wakes too, also over a change of the setting and back", async () => {
    await asleep("web");
    const before = await pid("web");
    await world.napd().stop(30_000);
    await world.start({ ...settings, "scale.freezer": "containerd" });
    await assertAnswers("web"); // frozen by the cgroup
    await asleep("web");
    await eventually(
      () => world.ctr("tasks", "list"),
      (list) => /^web\.\S+\s+\d+\s+PAUSED/m.test(list),
    );
    await world.napd().stop(30_000);
    await world.start(settings);
    await assertAnswers("web"); // paused by containerd
    await asleep("web");
    assert.match(await world.ctr("tasks", "list"), /^web\.\S+\s+\d+\s+RUNNING/m);
    assert.equal(await pid("web"), before);
    await remove("web");
    assert.equal(await world.ctr("containers", "list", "--quiet"), "");
  });
});
