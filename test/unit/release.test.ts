import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { readRelease } from "../../src/release.ts";
import { tmpDir } from "../support/tmp.ts";

async function openRoot(files: Record<string, string> = {}) {
  const dir = await tmpDir();
  for (const [name, text] of Object.entries({ "package.json": '{"version":"1.2.3"}', ...files }))
    await writeFile(`${dir.path}/${name}`, text);
  return dir;
}

suite("which napd this is", () => {
  test("comes from the file that a build leaves", async () => {
    await using dir = await openRoot({ "revision.json": '{"sha":"0123abc","message":"A change"}' });
    assert.deepEqual(await readRelease(dir.path), { version: "1.2.3", sha: "0123abc", commitMessage: "A change" });
  });

  test("comes from git in a checkout, and is the first line of the message", async () => {
    await using dir = await openRoot();
    const git = (...args: string[]) =>
      execFileSync("git", ["-C", dir.path, "-c", "user.name=a", "-c", "user.email=a@b", ...args], { encoding: "utf8" });
    git("init", "--quiet");
    git("commit", "--quiet", "--allow-empty", "-m", "Subject\n\nBody");
    assert.deepEqual(await readRelease(dir.path), {
      version: "1.2.3",
      sha: git("rev-parse", "HEAD").trim(),
      commitMessage: "Subject",
    });
  });

  for (const [says, files] of [
    ["nothing is there", {}],
    ["the file is broken", { "revision.json": "{" }],
    ["the file is empty of facts", { "revision.json": '{"sha":"","message":""}' }],
  ] as const)
    test(`is unknown, and never empty, when ${says}`, async () => {
      await using dir = await openRoot(files);
      const unknown = { version: "1.2.3", sha: "unknown", commitMessage: "unknown" };
      assert.deepEqual(await readRelease(dir.path), unknown);
    });

  test("is not that of a repository around it", async () => {
    await using outer = await openRoot();
    execFileSync("git", ["init", "--quiet", outer.path]);
    await mkdir(`${outer.path}/inner`);
    await writeFile(`${outer.path}/inner/package.json`, '{"version":"1.2.3"}');
    assert.equal((await readRelease(`${outer.path}/inner`)).sha, "unknown");
  });
});
