/** Asynchronous calls on real functions: none that got its 202 is lost, whatever happens to napd. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { webImage } from "../support/images.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const settings = {
  "images.pull_policy": "Never",
  "functions.grace": "200ms",
  "queue.callback_allow": "127.0.0.0/8",
  "queue.max_body": "1Mi",
};
const retries = {
  "com.openfaas.retry.attempts": "2",
  "com.openfaas.retry.codes": "501",
  "com.openfaas.retry.min_wait": "100ms",
  "napd.async-concurrency": "1",
};

suite("asynchronous calls", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  const told: { headers: IncomingHttpHeaders; body: string }[] = [];
  let receiver: string;

  before(async () => {
    world = up.use(await openWorld());
    await world.start(settings);
    await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
    for (const service of ["web", "slow"]) {
      const answer = await world.api("POST", "/system/functions", { service, image: "web:1", annotations: retries });
      assert.equal(answer.status, 202, answer.text);
    }
    const server = createServer(async (req, res) => {
      let body = "";
      for await (const piece of req) body += piece;
      told.push({ headers: req.headers, body });
      res.end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    up.defer(() => void server.close());
    receiver = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  });
  after(() => up.disposeAsync());

  async function later(path: string, id: string, body = "", headers: Record<string, string> = {}) {
    const init = { method: "POST", body, headers: { "X-Call-Id": id, ...headers } };
    return world.call(`/async-function/${path}`, init);
  }

  async function queued(
    query = "",
  ): Promise<{ callId: string; state: string; attempts: number; lastStatus?: number }[]> {
    return JSON.parse((await world.api("GET", `/system/queue${query}`)).text);
  }

  const empty = () => eventually(queued, (calls) => calls.length === 0);
  const answerFor = (id: string) =>
    eventually(
      async () => told.find(({ headers }) => headers["x-call-id"] === id),
      (found) => found !== undefined,
    );

  test("are answered at once, made with path, query and body, and told of", async () => {
    const answer = await later("web/cgi-bin/echo?a=b", "one", "body of it", { "X-Callback-Url": receiver });
    assert.deepEqual([answer.status, answer.text, answer.headers.get("x-call-id")], [202, "", "one"]);
    assert.match(answer.headers.get("x-start-time")!, /^\d{19}$/);
    const { headers, body } = (await answerFor("one"))!;
    assert.equal(body, "body of it");
    assert.equal(headers["x-function-status"], "200");
    assert.equal(headers["x-function-name"], "web");
    assert.match(String(headers["x-duration-seconds"]), /^\d+\.\d{6}$/);
    await empty();
    const large = "x".repeat(300_000);
    assert.equal((await later("web/cgi-bin/echo", "large", large, { "X-Callback-Url": receiver })).status, 202);
    assert.ok((await answerFor("large"))!.body === large);
  });

  test("are refused when they cannot be made, and nothing stays", async () => {
    assert.equal((await later("nobody", "x")).status, 404);
    assert.equal((await world.call("/async-function/web")).status, 405);
    assert.equal((await later("web", "x", "", { "X-Callback-Url": "nowhere" })).status, 400);
    assert.equal((await later("web", "x", "", { "X-Callback-Url": "http://169.254.169.254/" })).status, 400);
    assert.equal((await later("web", "x", "x".repeat(1_100_000))).status, 413);
    assert.equal((await world.api("GET", "/system/queue?state=odd")).status, 400);
    assert.equal((await world.api("GET", "/system/queue/x")).status, 404);
    assert.equal((await world.call("/system/queue")).status, 401);
    assert.deepEqual(await queued(), []);
  });

  test("that fail are tried again, then kept until somebody retries or drops them", async () => {
    assert.equal((await later("web/nothing", "poison", "", { "X-Callback-Url": receiver })).status, 202);
    const dead = () =>
      eventually(
        () => queued("?state=dead&function=web"),
        (calls) => calls.length === 1,
      );
    const [first] = await dead();
    assert.deepEqual([first?.callId, first?.attempts, first?.lastStatus], ["poison", 2, 501]);
    const { headers } = (await answerFor("poison"))!;
    assert.deepEqual([headers["x-function-status"], headers["x-retry"], headers["x-retry-max"]], ["501", "1", "1"]);
    assert.equal((await world.api("POST", "/system/queue/poison/retry")).status, 202);
    await eventually(
      async () => told.filter((t) => t.headers["x-call-id"] === "poison").length,
      (n) => n === 2,
    );
    await dead();
    const metrics = await (await fetch(world.metricsUrl)).text();
    assert.match(metrics, /napd_queue_dead_messages\{[^}]*function_name="web\.[^}]*\} 1/);
    assert.match(metrics, /napd_queue_retries_total\{[^}]*function_name="web\.[^}]*\} 2/);
    assert.match(metrics, /queue_worker_messages_processed_total\{[^}]*function_name="web\./);
    assert.equal((await world.api("DELETE", "/system/queue/poison")).status, 202);
    await empty();
  });

  test("of a slow function hold up nobody else, and can be cancelled queued and running", async () => {
    for (const id of ["s1", "s2"]) assert.equal((await later("slow/cgi-bin/slow?600", id)).status, 202);
    await eventually(
      () => queued("?function=slow"),
      (calls) => calls.some(({ state }) => state === "running"),
    );
    assert.deepEqual(
      (await queued()).map(({ callId, state }) => [callId, state]),
      [
        ...[
          ["s1", "running"],
          ["s2", "queued"],
        ],
      ],
    );
    assert.equal((await later("web/cgi-bin/echo", "quick", "q", { "X-Callback-Url": receiver })).status, 202);
    await answerFor("quick");
    const cancelled = await world.call("/async-function/s2", { method: "DELETE" });
    assert.equal(cancelled.status, 202);
    assert.equal((await world.api("DELETE", "/system/queue/s1")).status, 202);
    assert.equal((await world.api("DELETE", "/system/queue/s1")).status, 404);
    assert.deepEqual(await queued("?function=slow"), []);
    // its place is free again
    assert.equal((await later("slow/cgi-bin/echo", "after", "", { "X-Callback-Url": receiver })).status, 202);
    await answerFor("after");
  });

  test("that were answered with 202 all run, although napd is killed again and again", async () => {
    const accepted: string[] = [];
    let isOver = false;
    const callers = Array.from({ length: 4 }, async (_, caller) => {
      for (let i = 0; !isOver; i++) {
        const id = `k-${caller}-${i}`;
        const status = await later("web/cgi-bin/log", id, `${id}\n`).then(
          (answer) => answer.status,
          () => 0, // napd was killed: nobody was promised anything
        );
        if (status === 202) accepted.push(id);
        else await delay(20);
        await delay(5);
      }
    });
    for (let kill = 0; kill < 3; kill++) {
      const before = accepted.length;
      await eventually(
        async () => accepted.length,
        (n) => n > before + 20,
      );
      await world.napd().kill9();
      await world.start(settings);
    }
    isOver = true;
    await Promise.all(callers);
    await eventually(queued, (calls) => calls.length === 0, 60_000);
    const { text } = await world.api("GET", "/system/logs?name=web&follow=false&tail=-1");
    const ran = [...text.matchAll(/k-\d-\d+/g)].map(([id]) => id);
    const once = new Set(ran);
    assert.deepEqual(
      accepted.filter((id) => !once.has(id)),
      [],
    );
    console.log(`${accepted.length} accepted over 3 kills, ${ran.length - once.size} ran twice`);
  });
});
