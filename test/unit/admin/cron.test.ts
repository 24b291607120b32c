import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { openLog } from "../../../src/base/log.ts";
import { NamespaceStore } from "../../../src/store/namespaces.ts";
import { SecretStore } from "../../../src/store/secrets.ts";
import { openState } from "../../../src/store/state.ts";
import { Cron } from "../../../src/trigger/cron.ts";
import { type ApiParts, serveApi } from "../../fakes/api.ts";
import { FakeBackend } from "../../fakes/backend.ts";
import { tmpDir } from "../../support/tmp.ts";

/** The API with functions web in fn and late in team on a schedule, and plain in fn on none. */
async function open() {
  await using up = new AsyncDisposableStack();
  const dir = up.use(await tmpDir());
  const db = openState(dir.path);
  up.defer(() => db.close());
  const namespaces = new NamespaceStore(db);
  for (const name of ["fn", "team"]) namespaces.put({ name, labels: {}, annotations: {}, leaving: false });
  const on = (name: string, namespace: string, annotations: Record<string, string>) => ({
    id: { name, namespace },
    annotations,
  });
  const functions = [
    on("web", "fn", { topic: "cron-function", schedule: "0 0 1 1 *;nonsense", "napd.cron.overlap": "skip" }),
    on("late", "team", { topic: "cron-function", schedule: "@every 1h" }),
    on("plain", "fn", {}),
  ];
  const calls: string[] = [];
  const cron = up.use(
    new Cron({
      functions: () => functions,
      async deliver({ id }) {
        calls.push(id.name);
        return { status: 200 };
      },
      records: { load: () => [], save: () => {} },
      ...{ timeZone: "Europe/Berlin", clock: systemClock, log: openLog("silent") },
    }),
  );
  const parts = {
    ...{ functions: {} as ApiParts["functions"], namespaces, backend: new FakeBackend() },
    secrets: new SecretStore(`${dir.path}/secrets`),
  };
  const { ask } = up.use(await serveApi(parts, { cron }));
  const stack = up.move();
  return { ask, calls, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

suite("/system/cron", () => {
  test("shows the functions of a namespace that have a schedule", async () => {
    await using t = await open();
    const [web, ...others] = JSON.parse((await t.ask("GET", "/system/cron")).text);
    assert.deepEqual(others, []);
    assert.deepEqual(
      [web.name, web.namespace, web.overlap, web.missed, web.async],
      ["web", "fn", "skip", "skip", false],
    );
    assert.equal(web.errors.length, 1);
    const [{ next, ...schedule }] = web.schedules;
    assert.deepEqual(schedule, { expression: "0 0 1 1 *", timeZone: "Europe/Berlin" });
    assert.match(next, /-12-31T23:00:00\.000Z$/);
    const team = JSON.parse((await t.ask("GET", "/system/cron?namespace=team")).text);
    assert.deepEqual([team.length, team[0].name, team[0].schedules[0].timeZone], [1, "late", null]);
  });

  test("runs one by hand, which its list of runs then shows", async () => {
    await using t = await open();
    const answer = await t.ask("POST", "/system/cron/web/run");
    assert.equal(answer.status, 202);
    const { callId, trigger, result } = JSON.parse(answer.text);
    assert.deepEqual([trigger, result], ["manual", "running"]);
    const [{ runs }] = JSON.parse((await t.ask("GET", "/system/cron")).text);
    assert.deepEqual([runs.length, runs[0].callId, runs[0].result, runs[0].status], [1, callId, "ok", 200]);
    for (const path of ["/system/cron/late.team/run", "/system/cron/late/run?namespace=team"])
      assert.equal((await t.ask("POST", path)).status, 202);
    assert.deepEqual(t.calls, ["web", "late", "late"]);
  });

  const rows: [method: string, path: string, status: number][] = [
    ["POST", "/system/cron/plain/run", 404],
    ["POST", "/system/cron/none/run", 404],
    ["POST", "/system/cron/web/run?namespace=none", 400],
    ["GET", "/system/cron?namespace=none", 400],
    ["GET", "/system/cron/web/run", 405],
    ["DELETE", "/system/cron", 405],
  ];
  for (const [method, path, status] of rows)
    test(`${method} ${path} is ${status}`, async () => {
      await using t = await open();
      assert.equal((await t.ask(method, path)).status, status);
      assert.equal((await t.ask(method, path, { authorization: null })).status, 401);
      assert.deepEqual(t.calls, []);
    });
});
