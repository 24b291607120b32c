import assert from "node:assert/strict";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { Bodies, emptyBody } from "../../../src/queue/bodies.ts";
import { bodiesDir, SqliteStore } from "../../../src/queue/sqlite.ts";
import type { NewMessage } from "../../../src/queue/store.ts";
import { until } from "../../fakes/platform.ts";
import { tmpDir } from "../../support/tmp.ts";

function message(callId: string, more: Partial<NewMessage> = {}): NewMessage {
  const plain = {
    lane: "call",
    fn: "web.fn",
    target: "/",
    headers: ["A", "b"],
    callback: null,
    created: 1000,
  } as const;
  return { callId, body: emptyBody, ...plain, ...more };
}

async function opened() {
  const dir = await tmpDir();
  const up = new AsyncDisposableStack();
  up.use(dir);
  let store = await SqliteStore.open(dir.path);
  const bodies = new Bodies(bodiesDir(dir.path));
  const taken = async (limit = 10, now = 2000) =>
    (await store.take("call", "web.fn", limit, now)).messages.map(({ callId }) => callId);
  return {
    ...{ path: dir.path, bodies, taken },
    store: () => store,
    files: () => readdir(bodiesDir(dir.path)),
    async reopen() {
      await store[Symbol.asyncDispose]();
      store = await SqliteStore.open(dir.path);
    },
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await up.disposeAsync();
    },
  };
}

suite("the store of the queue", () => {
  test("gives messages back as they came, the oldest first, to one taker", async () => {
    await using t = await opened();
    const body = { bytes: 3, data: new Uint8Array([0, 255, 7]), file: null };
    await Promise.all([t.store().put(message("a", { body, callback: "http://x/" })), t.store().put(message("b"))]);
    await t.store().put(message("other", { fn: "else.fn" }));
    const { messages, nextDue } = await t.store().take("call", "web.fn", 1, 2000);
    assert.deepEqual(messages, [{ ...message("a", { body, callback: "http://x/" }), seq: 1, attempts: 1 }]);
    assert.equal(nextDue, 1000);
    assert.deepEqual(await t.taken(), ["b"]);
    assert.deepEqual(await t.taken(), []);
  });

  test("queues again what was under way when it ended, with its attempts", async () => {
    await using t = await opened();
    await t.store().put(message("a"));
    await t.taken();
    await t.reopen();
    const { messages } = await t.store().take("call", "web.fn", 9, 2000);
    assert.deepEqual([messages.length, messages[0]?.attempts], [1, 2]);
  });

  test("keeps what waits for its next attempt until it is due", async () => {
    await using t = await opened();
    await t.store().put(message("a"));
    const [taken] = (await t.store().take("call", "web.fn", 1, 2000)).messages;
    assert.equal(await t.store().settle(taken!.seq, { to: "queued", due: 5000, status: 500, error: "why" }), true);
    assert.deepEqual(await t.store().take("call", "web.fn", 1, 4999), { messages: [], nextDue: 5000 });
    const [info] = await t.store().list({ callId: "a", limit: 1 });
    assert.deepEqual([info?.state, info?.attempts, info?.status, info?.error], ["queued", 1, 500, "why"]);
    assert.deepEqual(await t.taken(1, 5000), ["a"]);
  });

  test("forgets what is done, and puts what follows from it in its place", async () => {
    await using t = await opened();
    await t.store().put(message("a"));
    const [taken] = (await t.store().take("call", "web.fn", 1, 2000)).messages;
    const next = message("a", { lane: "callback", target: "http://x/" });
    assert.equal(await t.store().settle(taken!.seq, { to: "done", next }), true);
    assert.equal(await t.store().settle(taken!.seq, { to: "done", next }), false);
    const found = await t.store().list({ callId: "a", limit: 9 });
    assert.deepEqual(
      found.map(({ lane, state, target }) => [lane, state, target]),
      [["callback", "queued", "http://x/"]],
    );
  });

  test("keeps the dead until they are revived, or buried by age or number", async () => {
    await using t = await opened();
    for (const [i, id] of ["a", "b", "c"].entries()) await t.store().put(message(id, { created: 1000 + i }));
    for (const { seq } of (await t.store().take("call", "web.fn", 9, 2000)).messages)
      await t.store().settle(seq, { to: "dead", status: 500 });
    assert.deepEqual(await t.taken(), []);
    assert.deepEqual(await t.store().revive("b", 2000), [{ lane: "call", fn: "web.fn" }]);
    assert.deepEqual(await t.store().revive("b", 2000), []);
    const [b] = (await t.store().take("call", "web.fn", 9, 2000)).messages;
    assert.deepEqual([b?.callId, b?.attempts], ["b", 1]);
    assert.equal(await t.store().bury(1000, 9), 0);
    assert.equal(await t.store().bury(1001, 9), 1);
    assert.equal(await t.store().bury(0, 0), 1);
    assert.deepEqual(await t.store().depths(), [
      { lane: "call", fn: "web.fn", queued: 0, running: 1, dead: 0, oldest: 1001 },
    ]);
  });

  test("lists by function, namespace and state", async () => {
    await using t = await opened();
    await t.store().put(message("a"));
    await t.store().put(message("b", { fn: "web.dev" }));
    await t.taken();
    const ids = async (filter: object) => (await t.store().list({ limit: 9, ...filter })).map(({ callId }) => callId);
    assert.deepEqual(await ids({}), ["a", "b"]);
    assert.deepEqual(await ids({ fn: "web.dev" }), ["b"]);
    assert.deepEqual(await ids({ namespace: "fn" }), ["a"]);
    assert.deepEqual(await ids({ state: "running" }), ["a"]);
    assert.deepEqual(await ids({ state: "dead" }), []);
    assert.deepEqual(await ids({ limit: 1 }), ["a"]);
  });

  test("removes a call with its large body, and files that nobody knows at the next start", async () => {
    await using t = await opened();
    const large = Buffer.alloc(200_000, "x");
    const body = (await t.bodies.keep(Readable.from([large.subarray(0, 70_000), large.subarray(70_000)]), 1e6))!;
    assert.deepEqual([body.bytes, body.data], [200_000, null]);
    await t.store().put(message("a", { body }));
    await writeFile(`${bodiesDir(t.path)}/nobodys`, "");
    await t.reopen();
    assert.deepEqual(await t.files(), [body.file]);
    assert.ok((await readFile(`${bodiesDir(t.path)}/${body.file}`)).equals(large));
    assert.deepEqual(
      (await t.store().remove("a")).map(({ state }) => state),
      ["queued"],
    );
    assert.deepEqual(await t.files(), []);
    assert.deepEqual(await t.store().remove("a"), []);
  });

  test("has nothing of a body that is too large or breaks off", async () => {
    await using t = await opened();
    const piece = Buffer.alloc(100_000);
    assert.equal(await t.bodies.keep(Readable.from([piece, piece]), 150_000), null);
    async function* broken() {
      yield piece;
      throw new Error("gone");
    }
    await assert.rejects(t.bodies.keep(Readable.from(broken()), 1e6), /gone/);
    assert.deepEqual(await t.files(), []);
  });

  test("takes no body, however small, that the disk should not have", async () => {
    await using t = await opened();
    const strict = new Bodies(bodiesDir(t.path), Number.MAX_SAFE_INTEGER);
    for (const bytes of [1, 100_000])
      await assert.rejects(strict.keep(Readable.from([Buffer.alloc(bytes)]), 1e6), (e) => isAppError(e, "DISK_FULL"));
    assert.deepEqual(await strict.keep(Readable.from([]), 1e6), emptyBody);
    assert.deepEqual(await t.files(), []);
  });

  test("does not refuse others along with one that cannot be done", async () => {
    await using t = await opened();
    const bad = message("bad", { callId: null as unknown as string });
    const results = await Promise.allSettled([
      t.store().put(message("a")),
      t.store().put(bad),
      t.store().put(message("b")),
    ]);
    assert.deepEqual(
      results.map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled"],
    );
    const { reason } = results[1] as PromiseRejectedResult;
    assert.ok(isAppError(reason, "QUEUE_STORE"), String(reason));
    assert.deepEqual(await t.taken(), ["a", "b"]);
  });

  test("gives the disk back when a long queue has become short", async () => {
    await using t = await opened();
    const body = { bytes: 60_000, data: new Uint8Array(60_000), file: null };
    await Promise.all(Array.from({ length: 600 }, (_, i) => t.store().put(message(`call-${i}`, { body }))));
    await t.taken(600);
    await Promise.all(Array.from({ length: 600 }, (_, i) => t.store().remove(`call-${i}`)));
    await until("the file is shorter", async () => (await stat(`${t.path}/queue.db`)).size < 25e6);
  });

  test("that is of a newer napd is refused", async () => {
    await using t = await opened();
    const { DatabaseSync } = await import("node:sqlite");
    const db = new DatabaseSync(`${t.path}/queue.db`);
    db.exec("PRAGMA user_version = 99");
    db.close();
    await assert.rejects(SqliteStore.open(t.path), (e) => isAppError(e, "QUEUE_STORE") && /newer/.test(e.message));
  });
});
