import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { readInside } from "../../../../src/host/image/identity.ts";
import { tmpDir } from "../../../support/tmp.ts";

const run = promisify(execFile);

/** Files by path; a value that begins with `->` is a link. The image's root is `image/`, `outside` lies beside it. */
const rows: [sentence: string, files: Record<string, string>, found: string][] = [
  ["a file", { "/etc/passwd": "inside" }, "inside"],
  ["none", {}, ""],
  ["an absolute link", { "/etc/passwd": "->/data/x", "/data/x": "inside" }, "inside"],
  ["a relative link", { "/etc/passwd": "->../data/x", "/data/x": "inside" }, "inside"],
  ["a link for the directory", { "/etc": "->/real/etc", "/real/etc/passwd": "inside" }, "inside"],
  ["`..` stops at the root", { "/etc/passwd": "->../../../../data/x", "/data/x": "inside" }, "inside"],
  ["an absolute link out", { "/etc/passwd": "->OUTSIDE" }, ""],
  ["a relative link out", { "/etc/passwd": "->../../outside" }, ""],
  ["a link out by a link", { "/etc": "->/a/b", "/a/b": "->../../..", "/etc2": "x" }, ""],
  ["a ring", { "/etc/passwd": "->passwd" }, ""],
  ["a link to nothing", { "/etc/passwd": "->/none/x" }, ""],
  ["through a file", { "/etc": "a file" }, ""],
  ["a name too long", { "/etc/passwd": `->${"x".repeat(300)}` }, ""],
];

suite("files inside an image", () => {
  for (const [sentence, files, found] of rows)
    test(sentence, async () => {
      await using tmp = await tmpDir();
      const root = `${tmp.path}/image`;
      await mkdir(root);
      await writeFile(`${tmp.path}/outside`, "outside");
      for (const [path, content] of Object.entries(files)) {
        await mkdir(dirname(root + path), { recursive: true });
        if (content.startsWith("->"))
          await symlink(content.slice(2).replace("OUTSIDE", `${tmp.path}/outside`), root + path);
        else await writeFile(root + path, content);
      }
      assert.equal(await readInside(root, "/etc/passwd"), found);
    });

  test("a FIFO does not hold us up, a directory and a socket are no files", { timeout: 5000 }, async () => {
    await using tmp = await tmpDir();
    await run("mkfifo", [`${tmp.path}/fifo`]);
    await mkdir(`${tmp.path}/dir`);
    assert.equal(await readInside(tmp.path, "/fifo"), "");
    assert.equal(await readInside(tmp.path, "/dir"), "");
  });

  test("at most 1 MiB is read", async () => {
    await using tmp = await tmpDir();
    await writeFile(`${tmp.path}/x`, "x".repeat(2_000_000));
    assert.equal((await readInside(tmp.path, "/x")).length, 1024 * 1024);
  });
});
