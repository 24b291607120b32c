/** Asynchronous calls that a NATS server keeps: none is lost when it, or a machine that shares them, dies. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { webImage } from "../support/images.ts";
import { type NatsServer, openNats } from "../support/nats.ts";
import { tmpDir } from "../support/tmp.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

suite("asynchronous calls on a NATS server", () => {
  const up = new AsyncDisposableStack();
  const namespace = "shared";
  let server: NatsServer;
  let worlds: [World, World];
  let settings: Record<string, string>;
  /** Ids and bodies of the callbacks that came. */
  const told: { id: string; body: string }[] = [];
  let receiver: string;

  before(async () => {
    const { path } = up.use(await tmpDir());
    server = up.use(await openNats(path));
    settings = {
      "images.pull_policy": "Never",
      "functions.grace": "200ms",
      "queue.callback_allow": "127.0.0.0/8",
      "queue.url": server.url,
      "queue.ack_wait": "2s",
      "queue.concurrency": "4",
    };
    const image = await webImage(`${path}/web.tar`, "docker.io/library/web:1", "hello\n");
    const openOne = async () => {
      const world = up.use(await openWorld({ namespace }));
      await world.start(settings);
      await world.import(image);
      const answer = await world.api("POST", "/system/functions", { service: "web", image: "web:1" });
      assert.equal(answer.status, 202, answer.text);
      return world;
    };
    worlds = await Promise.all([openOne(), openOne()]);
    const receives = createServer(async (req, res) => {
      let body = "";
      for await (const piece of req) body += piece;
      told.push({ id: String(req.headers["x-call-id"]), body });
      res.end();
    }).listen(0, "127.0.0.1");
    await once(receives, "listening");
    up.defer(() => void receives.close());
    receiver = `http://127.0.0.1:${(receives.address() as AddressInfo).port}/`;
  });
  after(() => up.disposeAsync());

  const later = (world: World, path: string, id: string, body = "", callback = receiver) =>
    world.call(`/async-function/web${path}`, {
      method: "POST",
      body,
      headers: { "X-Call-Id": id, ...(callback && { "X-Callback-Url": callback }) },
    });

  const queued = async (world: World): Promise<{ callId: string; state: string }[]> =>
    JSON.parse((await world.api("GET", "/system/queue")).text);
  const isEmpty = (world: World) =>
    eventually(
      () => queued(world).catch(() => null),
      (calls) => calls?.length === 0,
      60_000,
    );
  const ranOn = async (world: World) =>
    [...(await world.api("GET", "/system/logs?name=web&follow=false&tail=-1")).text.matchAll(/\bid-[\w-]+/g)].map(
      ([id]) => id,
    );

  test("that were answered with 202 all run and are told of, although the server is killed again and again", async () => {
    const accepted: string[] = [];
    const refusals: { status: number; text: string; retryAfter: string | null }[] = [];
    let isOver = false;
    const callers = Array.from({ length: 4 }, async (_, caller) => {
      for (let i = 0; !isOver; i++) {
        const id = `id-${caller}-${i}`;
        const { status, text, headers } = await later(worlds[caller % 2]!, "/cgi-bin/log", id, `${id}\n`);
        if (status === 202) accepted.push(id);
        else refusals.push({ status, text, retryAfter: headers.get("retry-after") });
        await delay(status === 202 ? 5 : 50);
      }
    });
    for (let kill = 0; kill < 3; kill++) {
      const before = accepted.length;
      await eventually(
        async () => accepted.length,
        (n) => n > before + 20,
      );
      await server.kill9();
      await eventually(
        async () => refusals.length,
        (n) => n > kill,
      );
      assert.equal((await fetch(worlds[0].metricsUrl)).status, 200);
      await server.start();
    }
    isOver = true;
    await Promise.all(callers);
    await isEmpty(worlds[0]);
    for (const { status, text, retryAfter } of refusals) {
      assert.deepEqual([status, retryAfter], [503, "5"], text);
      assert.ok(text.includes(server.url) && text.includes("queue.url"), text);
    }
    const runs = await Promise.all(worlds.map(ranOn));
    const once = new Set(runs.flat());
    const ids = new Set(told.map(({ id }) => id));
    assert.deepEqual(
      accepted.filter((id) => !once.has(id) || !ids.has(id)),
      [],
    );
    assert.ok(runs[0]!.length > 0 && runs[1]!.length > 0, "both machines take part");
    const [again, toldAgain] = [runs.flat().length - once.size, told.length - ids.size];
    console.log(
      `${accepted.length} accepted, ${refusals.length} refused over 3 kills of the server, ${again} ran twice, ${toldAgain} were told twice`,
    );
  });

  test("of a machine that dies are made by another, with bodies of any size, and can be cancelled from anywhere", async () => {
    const [one, other] = worlds;
    told.length = 0;
    const large = "x".repeat(2_000_000);
    assert.equal((await later(one, "/cgi-bin/echo", "large", large)).status, 202);
    const [{ id, body } = { id: "", body: "" }] = await eventually(
      async () => told.slice(),
      (calls) => calls.length === 1,
    );
    assert.ok(id === "large" && body === large);

    const ids = Array.from({ length: 8 }, (_, i) => `slow-${i}`);
    for (const slow of ids) assert.equal((await later(one, "/cgi-bin/slow?2", slow)).status, 202);
    assert.equal((await other.api("DELETE", "/system/queue/slow-7")).status, 202);
    await eventually(
      async () => (await fetch(other.metricsUrl)).text(),
      (metrics) => /^queue_worker_function_invocation_inflight\{[^}]*\} [1-9]/m.test(metrics),
    );
    await other.napd().kill9();
    await eventually(
      async () => new Set(told.map((t) => t.id)).size,
      (n) => n === 8,
      30_000,
    );
    await isEmpty(one);
    // twice what had ended when the machine was killed, and was not written down yet
    const toldOf = told.map((t) => t.id);
    assert.deepEqual([...new Set(toldOf)].sort(), ["large", ...ids.slice(0, 7)]);
    console.log(`a machine was killed with calls under way, ${toldOf.length - 8} were told twice`);
    // what came meanwhile waits for nobody in particular
    await one.napd().stop(60_000);
    await other.start(settings);
    assert.equal((await later(other, "/cgi-bin/echo", "last", "l")).status, 202);
    await eventually(
      async () => told.at(-1)?.id,
      (last) => last === "last",
    );
  });
});
