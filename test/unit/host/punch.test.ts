import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { HolePuncher } from "../../../src/host/punch.ts";
import { tmpDir } from "../../support/tmp.ts";

const block = 4096;

suite("holes", () => {
  test("take the beginning of files and nothing else, also of many at once and of odd names", async () => {
    await using dir = await tmpDir();
    using puncher = new HolePuncher();
    const files = ["plain", " blanks ", 'quote\'s "and" $(dollars)\\'].map((name) => `${dir.path}/${name}`);
    for (const file of files) await writeFile(file, Buffer.alloc(16 * block, "x"));
    await Promise.all(files.map((file, i) => puncher.punch(file, (i + 1) * block)));
    for (const [i, file] of files.entries()) {
      const hole = (i + 1) * block;
      const bytes = await readFile(file);
      assert.equal(bytes.length, 16 * block);
      assert.ok(bytes.subarray(0, hole).every((b) => b === 0));
      assert.ok(bytes.subarray(hole).every((b) => b === 0x78));
      assert.equal((await stat(file)).blocks * 512, 16 * block - hole);
    }
  });

  test("that cannot be made say why, and the next ones can", async () => {
    await using dir = await tmpDir();
    using puncher = new HolePuncher();
    await assert.rejects(puncher.punch(`${dir.path}/none`, block), /fallocate: .*No such file/);
    await assert.rejects(puncher.punch(`${dir.path}/line\nend`, block), /line end/);
    await writeFile(`${dir.path}/file`, Buffer.alloc(2 * block, "x"));
    await puncher.punch(`${dir.path}/file`, block);
    assert.equal((await stat(`${dir.path}/file`)).blocks * 512, block);
  });

  test("are no longer waited for when there are to be none any more", async () => {
    const puncher = new HolePuncher();
    const made = puncher.punch("/proc/self/none", block);
    puncher[Symbol.dispose]();
    await assert.rejects(made, /no more holes/);
  });
});
