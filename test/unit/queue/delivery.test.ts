import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { suite, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { isAppError } from "../../../src/base/errors.ts";
import { openLog } from "../../../src/base/log.ts";
import { asyncDefaults } from "../../../src/functions/async-policy.ts";
import { openInternalCalls } from "../../../src/invoke/internal.ts";
import { Bodies, emptyBody } from "../../../src/queue/bodies.ts";
import { openDelivery } from "../../../src/queue/delivery.ts";
import { Guard } from "../../../src/queue/guard.ts";
import { type FunctionLimits, Queue } from "../../../src/queue/queue.ts";
import { Results } from "../../../src/queue/results.ts";
import { bodiesDir, SqliteStore } from "../../../src/queue/sqlite.ts";
import { gate, until } from "../../fakes/platform.ts";
import { tmpDir } from "../../support/tmp.ts";

type Fn = (req: IncomingMessage, res: ServerResponse) => void;

/** A queue whose calls `fn` answers. Calls are put where the gateway would, without its checks. */
async function opened(fn: Fn, more: Partial<FunctionLimits> = {}, diskReserve = 0) {
  await using up = new AsyncDisposableStack();
  const { path } = up.use(await tmpDir());
  const log = openLog("silent");
  const store = up.use(await SqliteStore.open(path));
  const results = up.use(await Results.open(`${path}/results`, { maxTotalBytes: 1e6, clock: systemClock, log }));
  const limits = { ...asyncDefaults, attempts: 3, minWaitMs: 1, maxBodyBytes: 0, ...more };
  const open = () =>
    Queue.open({
      ...{ store, results, bodies: new Bodies(bodiesDir(path), diskReserve), guard: new Guard([], []) },
      deliver: openInternalCalls(fn, 16_384),
      ...{
        limits: () => limits,
        defaults: limits,
        defaultNamespace: "fn",
        maxBodyBytes: 200_000,
        maxResultBytes: 100_000,
      },
      ...{ maxPending: 100, keepDeadMs: 1e9, clock: systemClock, log },
    });
  let queue: Queue;
  const message = (callId: string, callback: string | null = null, headers: readonly string[] = []) => ({
    ...{ lane: "call" as const, callId, fn: "web.fn", target: "/a?b", headers, body: emptyBody, callback },
    created: Date.now(),
  });
  const stack = up.move();
  return {
    ...{ store, message, queue: () => queue, files: () => readdir(bodiesDir(path)) },
    /** Queues calls as an earlier napd would have left them, and begins with them. */
    async begin(...messages: ReturnType<typeof message>[]) {
      for (const m of messages) await store.put(m);
      queue = await open();
      stack.defer(() => queue.stop(0));
    },
    empty: () => until("the queue is empty", async () => (await store.list({ limit: 9 })).length === 0),
    async result(callId: string) {
      const result = await queue.result(callId);
      if (!("body" in result)) return result.map(({ state }) => state);
      return { headers: new Headers(pairs(result.headers)), body: await text(result.body) };
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function pairs(flat: readonly string[]): [string, string][] {
  return flat.flatMap((name, i) => (i % 2 ? [] : [[name, flat[i + 1]!] as [string, string]]));
}

suite("asynchronous calls that are delivered", () => {
  test("a repeated attempt says which one it is, and how many there are at most", async () => {
    const seen: unknown[] = [];
    await using t = await opened((req, res) => {
      const { "x-call-id": id, "x-retry": retry, "x-retry-max": max } = req.headers;
      seen.push([req.url, id, retry, max]);
      res.writeHead(seen.length < 3 ? 503 : 200).end();
    });
    await t.begin(t.message("a", null, ["X-Call-Id", "a", "X-Retry", "forged"]));
    await t.empty();
    assert.deepEqual(seen, [
      ["/a?b", "a", "forged", undefined],
      ["/a?b", "a", "1", "2"],
      ["/a?b", "a", "2", "2"],
    ]);
  });

  test("one that ends napd again and again is given up without another attempt", async () => {
    let calls = 0;
    await using t = await opened((_req, res) => {
      calls++;
      res.writeHead(500).end();
    });
    await t.store.put(t.message("a"));
    for (let i = 0; i < 20; i++) {
      const [{ seq } = { seq: 0 }] = (await t.store.take("call", "web.fn", 1, Date.now() + 1)).messages;
      await t.store.settle(seq, { to: "queued", due: 0 }); // what the store does at its next start
    }
    await t.begin();
    await until("it is dead", async () => (await t.store.list({ state: "dead", limit: 1 })).length === 1);
    assert.equal(calls, 0);
    assert.match((await t.queue().get("a"))[0]!.error!, /again and again/);
  });

  test("results are kept where they are wanted, as the function gave them", async () => {
    const held = gate();
    await using t = await opened(
      async (_req, res) => {
        await held.opened;
        res
          .writeHead(418, { "X-Mine": ["a", "b"], "Content-Type": "text/x", "X-Function-Status": "forged" })
          .end("short");
      },
      { keepResultsMs: 60_000 },
    );
    await t.begin(t.message("a"));
    await until("it runs", async () => (await t.queue().get("a"))[0]!.state === "running");
    assert.deepEqual(await t.result("a"), ["running"]);
    held.open();
    await t.empty();
    const { headers, body } = (await t.result("a")) as { headers: Headers; body: string };
    assert.equal(body, "short");
    assert.deepEqual(
      ["x-mine", "content-type", "x-function-status", "x-function-name", "x-call-id"].map((name) => headers.get(name)),
      ["a, b", "text/x", "418", "web", "a"],
    );
    assert.match(headers.get("x-duration-seconds")!, /^\d+\.\d{6}$/);
    await assert.rejects(t.queue().result("b"), (e) => isAppError(e, "RESULT_NOT_FOUND"));
  });

  test("nothing is kept otherwise; an answer beyond the limit is read to its end all the same", async () => {
    let isRead = false;
    const large = Buffer.alloc(90_000);
    const answer: Fn = (_req, res) => {
      for (let i = 0; i < 9; i++) res.write(large);
      res.end(() => {
        isRead = true;
      });
    };
    {
      await using t = await opened(answer, { keepResultsMs: 60_000 });
      await t.begin(t.message("a"));
      await t.empty();
      await until("it was read", () => isRead);
      await assert.rejects(t.queue().result("a"), (e) => isAppError(e, "RESULT_NOT_KEPT"));
      assert.deepEqual(await t.files(), []);
    }
    await using t = await opened(answer);
    await t.begin(t.message("a"));
    await t.empty();
    await assert.rejects(t.queue().result("a"), (e) => isAppError(e, "RESULT_NOT_FOUND"));
  });

  test("one that never answers has a result too, and is kept as given up with what the platform says", async () => {
    await using t = await opened(
      (_req, res) => void res.writeHead(502, { "X-OpenFaaS-Internal": "napd" }).end("why\n"),
      {
        ...{ keepResultsMs: 60_000, attempts: 2 },
      },
    );
    await t.begin(t.message("a"));
    await until("it is dead", async () => (await t.store.list({ state: "dead", limit: 1 })).length === 1);
    const [info] = await t.queue().get("a");
    assert.deepEqual([info!.attempts, info!.status, info!.error], [2, 502, "why"]);
    const { headers, body } = (await t.result("a")) as { headers: Headers; body: string };
    assert.deepEqual([headers.get("x-function-status"), headers.get("x-retry"), body], ["502", "1", "why\n"]);
  });

  test("an answer that there is no room for is told of without its body, and the call is not made again", async () => {
    let calls = 0;
    const answer: Fn = (_req, res) => {
      calls++;
      res.end("body");
    };
    await using t = await opened(answer, { keepResultsMs: 60_000 }, Number.MAX_SAFE_INTEGER);
    await t.begin(t.message("a"));
    await t.empty();
    await assert.rejects(t.queue().result("a"), (e) => isAppError(e, "RESULT_NOT_KEPT"));
    assert.equal(calls, 1);
  });

  test("an attempt that our own disk has failed is made again", async () => {
    await using dir = await tmpDir();
    const bodies = new Bodies(dir.path);
    bodies.drop = () => Promise.reject(new Error("input/output error"));
    const attempt = openDelivery({
      ...{ bodies, results: {} as Results, guard: new Guard([], []), maxBodyBytes: 9, maxResultBytes: 9 },
      deliver: openInternalCalls((_req, res) => void res.writeHead(500).end("body"), 16_384),
      ...{ defaultNamespace: "fn", clock: systemClock, log: openLog("silent") },
      policy: () => asyncDefaults,
    });
    const message = { lane: "call", callId: "a", fn: "web.fn", target: "/", headers: [], body: emptyBody } as const;
    const taken = { ...message, callback: "http://203.0.113.1/", created: 1, seq: 1, attempts: 1 };
    const { to, error } = await attempt(taken, new AbortController().signal);
    assert.deepEqual([to, error], ["queued", "input/output error"]);
  });

  test("of one that is taken away while it runs nothing stays", async () => {
    const running = gate();
    const removed = gate();
    await using t = await opened(async (_req, res) => {
      res.write(Buffer.alloc(100_000));
      running.open();
      await removed.opened;
      res.end();
    });
    await t.begin(t.message("a", "http://203.0.113.1/"));
    await running.opened;
    await until("the answer begins to be kept", async () => (await t.files()).length === 1);
    await t.store.remove("a");
    removed.open();
    await until("it is gone", async () => (await t.files()).length === 0);
    assert.ok(
      t
        .queue()
        .inFlight()
        .every(({ running: n }) => n === 0),
    );
    assert.deepEqual(await t.store.depths(), []);
  });
});
