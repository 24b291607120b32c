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

// what every store owes is in test/contract/queue.ts
suite("the store of the queue in SQLite", () => {
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
