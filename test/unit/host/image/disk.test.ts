import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { suite, test } from "node:test";
import { isAppError } from "../../../../src/base/errors.ts";
import { Disk, type Need, type Space } from "../../../../src/host/image/disk.ts";
import { tmpDir } from "../../../support/tmp.ts";

const mib = 2 ** 20;

/** A disk with its directories on one file system; `space` may be another one for each. */
async function open(space: (dir: string) => Space, reserve = 100 * mib) {
  const tmp = await tmpDir();
  const dirs = ["content", "snapshots", "data"].map((name) => `${tmp.path}/${name}`);
  for (const dir of dirs) await mkdir(dir);
  const disk = new Disk({
    imageDirs: [...dirs.slice(0, 2), `${tmp.path}/not-there`],
    dataDir: dirs[2]!,
    reserve,
    measure: async (dir) => {
      if (dir.endsWith("not-there")) throw Object.assign(new Error("gone"), { code: "ENOENT" });
      return space(dir);
    },
  });
  return { disk, [Symbol.asyncDispose]: () => tmp[Symbol.asyncDispose]() };
}

const rows: [what: string, freeMib: number, need: Need, fits: boolean][] = [
  ["nothing, with more free than the reserve", 101, {}, true],
  ["nothing, with just the reserve free", 100, {}, true],
  ["nothing, with less free than the reserve", 99, {}, false],
  ["what leaves the reserve", 200, { images: 100 * mib }, true],
  ["what takes of the reserve", 200, { images: 101 * mib }, false],
  ["blobs and an upload on one file system, which add up", 200, { images: 60 * mib, data: 60 * mib }, false],
  ["an upload alone", 200, { data: 60 * mib }, true],
];

suite("the space that images need", () => {
  for (const [what, freeMib, need, fits] of rows)
    test(what, async () => {
      await using t = await open(() => ({ free: freeMib * mib, used: 50 }));
      const lack = await t.disk.lacks("image a:1", need);
      assert.equal(lack === undefined, fits, lack?.message);
    });

  test("a refusal names the image, what there is, what is needed, the setting and the remedy", async () => {
    await using t = await open(() => ({ free: 150 * mib, used: 50 }));
    const lack = await t.disk.lacks("image a:1", { images: 60 * mib });
    assert.ok(isAppError(lack, "DISK_LOW"));
    assert.equal(lack.status, 507);
    assert.match(lack.message, /image a:1 .* 150 MiB free, 60 MiB are needed, and 100 MiB stay free/);
    assert.match(lack.message, /images\.disk_reserve.*prune/);
  });

  test("the fullest file system counts; without any that can be seen nobody knows", async () => {
    await using t = await open((dir) => ({ free: 1e9, used: dir.endsWith("content") ? 91 : 20 }));
    assert.equal(await t.disk.used(), 91);
    const blind = new Disk({ imageDirs: ["/nonexistent/a"], dataDir: "/nonexistent/b", reserve: 1e18 });
    assert.equal(await blind.used(), undefined);
    assert.equal(await blind.lacks("x", { images: 1e18 }), undefined);
  });
});
