/** Cron on a real kernel: a function that sleeps is woken when its time comes. */
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { watchdogImage } from "../support/images.ts";
import { freezerStates } from "../support/sleep.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

interface Run {
  trigger: string;
  result: string;
  status: number;
  scheduledAt: string;
  startedAt: string;
}

suite("cron", () => {
  const up = new AsyncDisposableStack();
  let world: World;

  before(async () => {
    world = up.use(await openWorld());
    await world.start({ "images.pull_policy": "Never", "functions.grace": "200ms" });
    await world.import(await watchdogImage(`${world.dir}/env.tar`, "docker.io/library/env:1", "env"));
  });
  after(() => up.disposeAsync());

  const runs = async (): Promise<Run[]> => JSON.parse((await world.api("GET", "/system/cron")).text)[0]?.runs ?? [];

  test("wakes a frozen function when its time has come, and lets it sleep again", async (t) => {
    const deployed = await world.api("POST", "/system/functions", {
      ...{ service: "tick", image: "env:1", labels: { "com.openfaas.scale.zero-duration": "50ms" } },
      annotations: { topic: "cron-function", schedule: "*/2 * * * * *" },
    });
    assert.equal(deployed.status, 202, deployed.text);
    const isAsleep = (states: string[]) => states.length > 0 && states.every((state) => state === "frozen");
    for (let round = 0; round < 2; round++) {
      await eventually(() => freezerStates(world, "tick"), isAsleep);
      const frozenAt = new Date().toISOString();
      const later = (run: Run) => run.scheduledAt > frozenAt && run.result !== "running";
      const [run] = (await eventually(runs, (all) => all.some(later))).filter(later);
      assert.deepEqual([run!.trigger, run!.result, run!.status], ["schedule", "ok", 200]);
      t.diagnostic(`begun ${Date.parse(run!.startedAt) - Date.parse(run!.scheduledAt)} ms after its time`);
    }
  });

  test("what it has run is known after a restart, and a change takes effect at once", async () => {
    await world.api("PUT", "/system/functions", {
      ...{ service: "tick", image: "env:1" },
      annotations: { topic: "cron-function", schedule: "@yearly; sometimes" },
    });
    const warnings = async () => JSON.parse((await world.api("GET", "/system/function/tick")).text).warnings;
    const [warning] = await eventually<string[]>(warnings, (all) => all?.length === 1);
    assert.match(warning!, /^schedule: "sometimes" has 1 fields/);
    const before = await eventually(runs, (all) => all.every((run) => run.result !== "running"));
    await world.napd().kill9();
    await world.start({ "images.pull_policy": "Never" });
    assert.deepEqual((await runs()).slice(-1), before.slice(-1));
    const answer = await world.api("POST", "/system/cron/tick/run");
    assert.equal(answer.status, 202, answer.text);
    const [latest] = await eventually(runs, ([run]) => run!.result !== "running");
    assert.deepEqual([latest!.trigger, latest!.status], ["manual", 200]);
  });

  test("a run may go through the queue, where its result is found by its id", async () => {
    const deployed = await world.api("PUT", "/system/functions", {
      ...{ service: "tick", image: "env:1" },
      annotations: {
        ...{ topic: "cron-function", schedule: "@yearly", "napd.cron.async": "true", "napd.async-results": "1m" },
      },
    });
    assert.equal(deployed.status, 202, deployed.text);
    const { callId } = JSON.parse((await world.api("POST", "/system/cron/tick/run")).text);
    const result = () => world.api("GET", `/system/queue/${callId}/result`);
    const { headers, text } = await eventually(result, ({ status }) => status === 200);
    assert.equal(headers.get("x-function-status"), "200");
    assert.match(text, /^Http_X_Topic=cron-function$/m);
    const [latest] = await eventually(runs, ([run]) => run!.result !== "running");
    assert.deepEqual([latest!.trigger, latest!.result, latest!.status], ["manual", "ok", 202]);
  });
});
