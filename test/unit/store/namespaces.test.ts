import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { suite, test } from "node:test";
import { FunctionStore } from "../../../src/store/functions.ts";
import { NamespaceStore } from "../../../src/store/namespaces.ts";
import { openState } from "../../../src/store/state.ts";
import { tmpDir } from "../../support/tmp.ts";

const row = (name: string, more = {}) => ({ name, labels: {}, annotations: {}, leaving: false, ...more });

suite("the namespaces of the state database", () => {
  test("come back as they were put, also from a store opened later", async () => {
    await using dir = await tmpDir();
    const db = openState(dir.path);
    const labels = JSON.parse('{"__proto__":"a","x":"größe\\u0000"}');
    const rows = [row("b", { labels, annotations: { long: "x".repeat(10_000) } }), row("a", { leaving: true })];
    const store = new NamespaceStore(db);
    for (const r of rows) store.put(r);
    store.put(row("b", { labels }));
    for (const s of [store, new NamespaceStore(db)]) {
      assert.deepEqual(s.list(), [rows[1], row("b", { labels })]);
      assert.equal(JSON.stringify(s.get("b")!.labels), JSON.stringify(labels));
      assert.deepEqual(s.names(), ["b"]);
    }
    db.close();
  });

  test("are gone when they are deleted", async () => {
    await using dir = await tmpDir();
    const db = openState(dir.path);
    const store = new NamespaceStore(db);
    store.put(row("a"));
    assert.deepEqual(store.names(), ["a"]);
    store.delete("a");
    store.delete("a");
    for (const s of [store, new NamespaceStore(db)])
      assert.deepEqual([s.get("a"), s.list(), s.names()], [undefined, [], []]);
    db.close();
  });

  test("of a database from before there were any are those of its functions", async () => {
    await using dir = await tmpDir();
    const db = openState(dir.path);
    new FunctionStore<object>(db).insert({ name: "web", namespace: "old" }, {}, 1, 1, 0);
    db.exec(
      "DROP TABLE cron; DROP TABLE namespaces; ALTER TABLE functions DROP COLUMN stopped; PRAGMA user_version = 1",
    );
    db.close();
    const later = openState(dir.path);
    assert.deepEqual(new NamespaceStore(later).names(), ["old"]);
    later.close();
    const { user_version } = new DatabaseSync(`${dir.path}/state.db`).prepare("PRAGMA user_version").get()!;
    assert.ok(Number(user_version) > 1, `schema ${user_version}`);
  });
});
