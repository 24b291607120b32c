/** Asynchronous calls on real functions: none that got its 202 is lost, whatever happens to napd. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, suite, test } from "node:test";
import { webImage } from "../support/images.ts";
import { killUnderLoad } from "../support/kills.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const settings = {
  "images.pull_policy": "Never",
  "functions.grace": "200ms",
  "queue.callback_allow": "127.0.0.0/8",
  "queue.max_body": "1Mi",
  // for functions that are gone
  "queue.attempts": "2",
  "queue.min_wait": "50ms",
};
const retries = {
  "com.openfaas.retry.attempts": "2",
  "com.openfaas.retry.codes": "501",
  "com.openfaas.retry.min_wait": "100ms",
  "napd.async-concurrency": "1",
  "napd.async-queue": "2",
  "napd.async-results": "1m",
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
    await deploy("web", { ...retries, "napd.async-queue": "1000" });
    await deploy("slow");
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

  async function deploy(service: string, annotations: Record<string, string> = retries) {
    const answer = await world.api("POST", "/system/functions", { service, image: "web:1", annotations });
    assert.equal(answer.status, 202, answer.text);
  }

  async function later(path: string, id: string, body = "", headers: Record<string, string> = {}) {
    const init = { method: "POST", body, headers: { "X-Call-Id": id, ...headers } };
    return world.call(`/async-function/${path}`, init);
  }

  async function queued(
    query = "",
  ): Promise<{ callId: string; state: string; attempts: number; lastStatus?: number; lastError?: string }[]> {
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

  test("have a result to be asked for, once they are done", async () => {
    assert.equal((await later("web/cgi-bin/slow?0.3", "kept")).status, 202);
    const early = await world.api("GET", "/system/queue/kept/result");
    assert.deepEqual([early.status, early.headers.get("retry-after")], [202, "1"]);
    assert.match(JSON.parse(early.text)[0].state, /queued|running/);
    const result = () => world.api("GET", "/system/queue/kept/result");
    const { headers, text } = await eventually(result, ({ status }) => status === 200);
    assert.equal(text, "slept\n");
    assert.deepEqual([headers.get("x-function-status"), headers.get("content-type")], ["200", "text/plain"]);
    assert.equal((await world.api("GET", "/system/queue/unknown/result")).status, 404);
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
    const third = await later("slow", "s3");
    assert.deepEqual([third.status, third.headers.get("retry-after")], [429, "5"], third.text);
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
    for (const [path, status] of [
      ["s2", 202],
      ["slow?call-id=s2", 404],
      ["slow?call-id=s%201", 404],
    ] as const)
      assert.equal((await world.call(`/async-function/${path}`, { method: "DELETE" })).status, status, path);
    assert.equal((await world.api("DELETE", "/system/queue/s1")).status, 202);
    assert.equal((await world.api("DELETE", "/system/queue/s1")).status, 404);
    assert.deepEqual(await queued("?function=slow"), []);
    // its place is free again
    assert.equal((await later("slow/cgi-bin/echo", "after", "", { "X-Callback-Url": receiver })).status, 202);
    await answerFor("after");
  });

  test("outlive their function: they are given up, and made when it is there again and somebody says so", async () => {
    await deploy("gone");
    assert.equal((await later("gone/cgi-bin/slow?0.3", "g1")).status, 202);
    assert.equal((await later("gone/cgi-bin/echo", "g2", "late", { "X-Callback-Url": receiver })).status, 202);
    await world.api("DELETE", "/system/functions", { functionName: "gone" });
    const dead = () => queued("?state=dead");
    const [g2] = (await eventually(dead, (calls) => calls.some(({ callId }) => callId === "g2"))).slice(-1);
    assert.deepEqual([g2?.callId, g2?.attempts, g2?.lastStatus], ["g2", 2, 404]);
    assert.match(g2?.lastError ?? "", /does not exist/);
    await deploy("gone");
    assert.equal((await world.api("POST", "/system/queue/g2/retry")).status, 202);
    await eventually(
      async () => told.filter(({ headers }) => headers["x-call-id"] === "g2").map(({ body }) => body),
      (bodies) => bodies.includes("late"),
    );
    await world.api("DELETE", "/system/queue/g1");
    await empty();
  });

  test("end before napd does when it is stopped, and are begun anew when it is killed", async () => {
    for (const [id, end] of [
      ["stopped", () => world.napd().stop(60_000)],
      ["killed", () => world.napd().kill9()],
    ] as const) {
      assert.equal((await later("slow/cgi-bin/slow?0.7", id, "", { "X-Callback-Url": receiver })).status, 202);
      await eventually(queued, ([call]) => call?.state === "running");
      await end();
      await world.start(settings);
    }
    assert.equal((await answerFor("stopped"))!.headers["x-retry"], undefined);
    const { headers, body } = (await answerFor("killed"))!;
    assert.deepEqual([headers["x-retry"], headers["x-function-status"], body], ["1", "200", "slept\n"]);
    await empty();
  });

  test("that were answered with 202 all run, although napd is killed again and again", async (t) => {
    const more = (accepted: () => number) => {
      const before = accepted();
      return eventually(
        async () => accepted(),
        (n) => n > before + 20,
      );
    };
    const result = await killUnderLoad(world, {
      ...{ path: "web/cgi-bin/log", name: "web", kills: 3, settings, wait: more },
    });
    assert.deepEqual(result.lost, []);
    t.diagnostic(`${result.accepted} accepted over 3 kills, ${result.repeated} runs repeated`);
  });
});
