import assert from "node:assert/strict";
import { readdir, truncate, writeFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { suite, test } from "node:test";
import { openLog } from "../../../src/base/log.ts";
import { Results } from "../../../src/queue/results.ts";
import { SetClock } from "../../fakes/clock.ts";
import { tmpDir } from "../../support/tmp.ts";

async function opened(maxTotalBytes = 1e6) {
  const dir = await tmpDir();
  const clock = new SetClock("2026-01-01T00:00:00Z");
  const open = () => Results.open(dir.path, { maxTotalBytes, clock, log: openLog("silent") });
  let results = await open();
  return {
    clock,
    dir: dir.path,
    put: (id: string, body: string, keepMs = 60_000) =>
      results.put(
        id,
        keepMs,
        { headers: ["A", id], bytes: body.length, isWhole: true },
        Readable.from([Buffer.from(body)]),
      ),
    async get(id: string) {
      const found = await results.get(id);
      return found && [found.headers, found.bytes, await text(found.body)];
    },
    files: () => readdir(dir.path),
    async reopen() {
      await results[Symbol.asyncDispose]();
      results = await open();
    },
    async [Symbol.asyncDispose]() {
      await results[Symbol.asyncDispose]();
      await dir[Symbol.asyncDispose]();
    },
  };
}

suite("results of asynchronous calls", () => {
  test("are given as they were, as often as somebody asks, also by the next napd", async () => {
    await using t = await opened();
    await t.put("../a", "body of a");
    await t.put("", "");
    for (let i = 0; i < 2; i++) {
      assert.deepEqual(await t.get("../a"), [["A", "../a"], 9, "body of a"]);
      assert.deepEqual(await t.get(""), [["A", ""], 0, ""]);
      assert.equal(await t.get("b"), undefined);
      await t.reopen();
    }
  });

  test("are gone when their time is over, and their files as well", async () => {
    await using t = await opened();
    await t.put("short", "x", 1000);
    await t.put("long", "y");
    t.clock.pass(1000);
    assert.deepEqual([await t.get("short"), (await t.get("long"))?.[2]], [undefined, "y"]);
    await t.reopen();
    assert.equal((await t.files()).length, 1);
  });

  test("the oldest make room", async () => {
    await using t = await opened(20_000);
    for (const id of ["a", "b", "c", "d"]) await t.put(id, "x".repeat(1000));
    assert.equal(await t.get("a"), undefined);
    assert.deepEqual([(await t.files()).length, (await t.get("b"))?.[1]], [3, 1000]);
  });

  test("a later one of a call takes the place of an earlier one, however many come at once", async () => {
    await using t = await opened();
    for (let i = 0; i < 3; i++) {
      await Promise.all(["1", "22", "333"].map((body, j) => t.put("a", body, 60_000 + j)));
      await t.put("a", "last");
    }
    assert.deepEqual([(await t.files()).length, (await t.get("a"))?.[2]], [1, "last"]);
  });

  test("what is not whole is none, and what was being written is taken away", async () => {
    await using t = await opened();
    await t.put("a", "body of a");
    await truncate(`${t.dir}/${(await t.files())[0]}`, 20);
    assert.equal(await t.get("a"), undefined);
    await writeFile(`${t.dir}/draft`, "");
    await t.reopen();
    assert.equal((await t.files()).length, 1);
    const broken = new Readable({ read: () => broken.destroy(new Error("gone")) });
    await using results = await Results.open(t.dir, { maxTotalBytes: 1e6, clock: t.clock, log: openLog("silent") });
    await results.put("b", 1000, { headers: [], bytes: 1, isWhole: true }, broken);
    assert.equal((await t.files()).length, 1);
  });
});
