import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { FunctionStore } from "../../../src/store/functions.ts";
import { openState } from "../../../src/store/state.ts";
import { tmpDir } from "../../support/tmp.ts";

const id = { namespace: "fn", name: "web" };
const v = (n: number) => ({ image: `web:${n}`, text: 'quotes " and \n lines ü' });

/** A store on a directory of its own, which can be closed and opened again. */
async function open() {
  const dir = await tmpDir();
  let db = openState(dir.path);
  return {
    store: new FunctionStore<ReturnType<typeof v>>(db),
    reopen() {
      db.close();
      db = openState(dir.path);
      return new FunctionStore<ReturnType<typeof v>>(db);
    },
    async [Symbol.asyncDispose]() {
      db.close();
      await dir[Symbol.asyncDispose]();
    },
  };
}

suite("the store of functions", () => {
  test("gives back what was put in, also after it was closed and opened", async () => {
    await using s = await open();
    const row = s.store.insert(id, v(1), 7, 2, 1234);
    const expected = {
      ...id,
      version: v(1),
      generation: 7,
      previous: null,
      replicas: 2,
      stopped: false,
      failure: null,
      createdAt: 1234,
    };
    assert.deepEqual(row, expected);
    const again = s.reopen();
    assert.deepEqual(again.get(id), expected);
    assert.deepEqual(again.list(), [expected]);
  });

  test("lists by namespace and name", async () => {
    await using s = await open();
    for (const [namespace, name] of [
      ["b", "a"],
      ["a", "c"],
      ["a", "b"],
    ] as const)
      s.store.insert({ namespace, name }, v(1), 1, 1, 0);
    assert.deepEqual(
      s.store.list().map((row) => `${row.namespace}/${row.name}`),
      ["a/b", "a/c", "b/a"],
    );
  });

  test("keeps functions of the same name in different namespaces apart", async () => {
    await using s = await open();
    const other = { namespace: "other", name: "web" };
    s.store.insert(id, v(1), 1, 1, 0);
    s.store.insert(other, v(2), 2, 1, 0);
    s.store.delete(id);
    assert.equal(s.store.get(id), undefined);
    assert.deepEqual(s.store.get(other)!.version, v(2));
  });

  test("takes no function twice", async () => {
    await using s = await open();
    s.store.insert(id, v(1), 1, 1, 0);
    assert.throws(() => s.store.insert(id, v(2), 2, 1, 0), /UNIQUE/);
    assert.deepEqual(s.store.get(id)!.version, v(1));
  });

  test("never gives a generation twice, whatever was deleted, closed and opened between", async () => {
    await using s = await open();
    const given = [s.store.nextGeneration(), s.store.nextGeneration()];
    s.store.insert(id, v(1), given[1]!, 1, 0);
    s.store.delete(id);
    const again = s.reopen();
    given.push(again.nextGeneration(), again.nextGeneration());
    assert.deepEqual(given, [1, 2, 3, 4]);
  });

  test("an update keeps the time of creation, remembers what served, and forgets the last failure", async () => {
    await using s = await open();
    s.store.insert(id, v(1), 1, 1, 1234);
    s.store.fail(id, "no luck");
    const previous = { version: v(1), generation: 1 };
    const expected = {
      ...id,
      version: v(2),
      generation: 2,
      previous,
      replicas: 3,
      stopped: false,
      failure: null,
      createdAt: 1234,
    };
    assert.deepEqual(s.store.update(id, v(2), 2, previous, 3), expected);
    assert.deepEqual(s.reopen().get(id), expected);
  });

  test("a settled update has nothing to go back to", async () => {
    await using s = await open();
    s.store.insert(id, v(1), 1, 1, 0);
    s.store.update(id, v(2), 2, { version: v(1), generation: 1 }, 1);
    const row = s.store.settle(id);
    assert.deepEqual([row.version, row.generation, row.previous, row.failure], [v(2), 2, null, null]);
    assert.deepEqual(s.reopen().get(id), row);
  });

  test("a failed update goes back to what served, and keeps the reason", async () => {
    await using s = await open();
    s.store.insert(id, v(1), 1, 1, 0);
    s.store.update(id, v(2), 2, { version: v(1), generation: 1 }, 4);
    const row = s.store.fail(id, "no luck");
    assert.deepEqual(
      [row.version, row.generation, row.previous, row.failure, row.replicas],
      [v(1), 1, null, { generation: 2, reason: "no luck" }, 4],
    );
    assert.deepEqual(s.reopen().get(id), row);
  });

  test("a failed version that had none before it stays what is wanted, with the reason", async () => {
    await using s = await open();
    s.store.insert(id, v(1), 1, 1, 0);
    const row = s.store.fail(id, "no luck");
    assert.deepEqual(
      [row.version, row.generation, row.previous, row.failure],
      [v(1), 1, null, { generation: 1, reason: "no luck" }],
    );
    assert.equal(s.store.settle(id).failure, null);
  });

  test("scaling changes the number and nothing else", async () => {
    await using s = await open();
    const row = s.store.insert(id, v(1), 1, 1, 0);
    assert.deepEqual(s.store.scale(id, 0), { ...row, replicas: 0 });
    assert.equal(s.reopen().get(id)!.replicas, 0);
  });

  test("one that is stopped keeps its number, and runs again when it is scaled or updated", async () => {
    await using s = await open();
    const row = s.store.insert(id, v(1), 1, 3, 0);
    assert.deepEqual(s.store.stop(id), { ...row, stopped: true });
    const store = s.reopen();
    assert.equal(store.get(id)!.stopped, true);
    assert.deepEqual(store.scale(id, 3), row);
    store.stop(id);
    assert.equal(store.update(id, v(2), 2, null, 3).stopped, false);
  });

  test("deleting what is not there is fine", async () => {
    await using s = await open();
    s.store.delete(id);
    assert.deepEqual(s.store.list(), []);
  });
});
