import assert from "node:assert/strict";
import { stat, writeFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { FunctionStore } from "../../../src/store/functions.ts";
import { openState } from "../../../src/store/state.ts";
import { tmpDir } from "../../support/tmp.ts";

suite("the state database", () => {
  test("is made with its directory, which only its owner may enter", async () => {
    await using dir = await tmpDir();
    openState(`${dir.path}/a/b`).close();
    assert.equal((await stat(`${dir.path}/a/b`)).mode & 0o777, 0o700);
    assert.ok((await stat(`${dir.path}/a/b/state.db`)).isFile());
  });

  test("has a commit on disk when it returns", async () => {
    await using dir = await tmpDir();
    const db = openState(dir.path);
    assert.equal(db.prepare("PRAGMA journal_mode").get()!.journal_mode, "wal");
    assert.equal(db.prepare("PRAGMA synchronous").get()!.synchronous, 2); // FULL
    db.close();
  });

  test("shows what is committed to others at once, without having been closed", async () => {
    await using dir = await tmpDir();
    const [one, two] = [openState(dir.path), openState(dir.path)];
    new FunctionStore(one).insert({ namespace: "fn", name: "web" }, {}, 1, 1, 0);
    assert.equal(new FunctionStore(two).list().length, 1);
    one.close();
    two.close();
  });

  test("of a newer napd is refused and left as it is", async () => {
    await using dir = await tmpDir();
    openState(dir.path).close();
    const newer = new DatabaseSync(`${dir.path}/state.db`);
    newer.exec("PRAGMA user_version = 1000");
    newer.close();
    assert.throws(
      () => openState(dir.path),
      (e) => isAppError(e, "STORE") && /newer napd \(schema 1000/.test(e.message) && e.message.includes("state.db"),
    );
    const after = new DatabaseSync(`${dir.path}/state.db`);
    assert.equal(after.prepare("PRAGMA user_version").get()!.user_version, 1000);
    after.close();
  });

  test("that is none is refused by name", async () => {
    await using dir = await tmpDir();
    await writeFile(`${dir.path}/state.db`, "this is a text, and a long one, but not a database at all\n".repeat(100));
    assert.throws(
      () => openState(dir.path),
      (e) => isAppError(e, "STORE") && e.message.includes(`${dir.path}/state.db`),
    );
  });

  test("in a place that cannot be is refused by name", async () => {
    await using dir = await tmpDir();
    await writeFile(`${dir.path}/file`, "");
    assert.throws(
      () => openState(`${dir.path}/file/data`),
      (e) => isAppError(e, "STORE") && e.message.includes(`${dir.path}/file/data/state.db`),
    );
  });
});
