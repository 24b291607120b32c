import assert from "node:assert/strict";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import type { Names } from "../../../src/host/context.ts";
import { SecretCopies } from "../../../src/host/secrets.ts";
import { tmpDir } from "../../support/tmp.ts";

/** Copies of secrets of namespace fn; `values` may be changed. */
async function open() {
  const dir = await tmpDir();
  const values = new Map([
    ["key", "old"],
    ["other", "old"],
  ]);
  let reads = 0;
  const copies = new SecretCopies(dir.path, async (namespace, name) => {
    reads++;
    const value = namespace === "fn" ? values.get(name) : undefined;
    return value === undefined ? undefined : Buffer.from(value);
  });
  const names = (id: string, namespace = "fn") =>
    ({ namespace, secretsDir: `${dir.path}/secrets/${namespace}.${id}` }) as Names;
  const read = (id: string, name: string) => readFile(`${names(id).secretsDir}/${name}`, "utf8");
  const { uid, gid } = await stat(dir.path);
  return {
    ...{ dir, values, copies, names, read, owner: { uid, gid }, reads: () => reads },
    [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
  };
}

suite("the copies of secrets for a replica", () => {
  test("are for its user alone, in a directory that nobody else may enter", async () => {
    await using s = await open();
    await s.copies.make(s.names("web.1.0"), ["key"], s.owner);
    const mode = async (path: string) => (await stat(`${s.dir.path}/secrets${path}`)).mode & 0o777;
    assert.deepEqual([await mode(""), await mode("/fn.web.1.0"), await mode("/fn.web.1.0/key")], [0o700, 0o500, 0o400]);
    assert.deepEqual(await readdir(`${s.dir.path}/secrets`), ["fn.web.1.0"]);
  });

  test("are not made when there is nothing to copy, and not without one that is missing", async () => {
    await using s = await open();
    await s.copies.make(s.names("web.1.0"), [], s.owner);
    assert.deepEqual(await readdir(s.dir.path), []);
    await assert.rejects(s.copies.make(s.names("web.1.0"), ["no"], s.owner), (e) => isAppError(e, "SECRET_MISSING"));
  });

  test("follow the secret, one by one, in every replica of the namespace that has it", async () => {
    await using s = await open();
    for (const id of ["web.1.0", "web.1.1"]) await s.copies.make(s.names(id), ["key", "other"], s.owner);
    await s.copies.make(s.names("bare.2.0"), ["other"], s.owner);
    s.values.set("key", "new").set("other", "new");
    await s.copies.refresh("fn", "key");
    assert.deepEqual([await s.read("web.1.0", "key"), await s.read("web.1.1", "key")], ["new", "new"]);
    assert.equal(await s.read("web.1.0", "other"), "old");
    assert.deepEqual(await readdir(s.names("bare.2.0").secretsDir), ["other"]);
    await s.copies.refreshReplica(s.names("bare.2.0"));
    assert.equal(await s.read("bare.2.0", "other"), "new");
  });

  test("are of one namespace, whatever others are called", async () => {
    await using s = await open();
    await s.copies.make(s.names("web.1.0"), ["key"], s.owner);
    for (const namespace of ["f", "fn-2", "web"]) await s.copies.refresh(namespace, "key");
    assert.equal(await s.read("web.1.0", "key"), "old");
  });

  test("are replaced as a whole: who has the old file open reads the old bytes to their end", async () => {
    await using s = await open();
    await s.copies.make(s.names("web.1.0"), ["key"], s.owner);
    const before = await stat(`${s.names("web.1.0").secretsDir}/key`);
    s.values.set("key", "new");
    await s.copies.refresh("fn", "key");
    assert.notEqual((await stat(`${s.names("web.1.0").secretsDir}/key`)).ino, before.ino);
    assert.deepEqual(await readdir(s.names("web.1.0").secretsDir), ["key"]);
    assert.deepEqual(await readdir(`${s.dir.path}/secrets`), ["fn.web.1.0"]);
  });

  test("made while the secret changes are not older than the change", async () => {
    await using s = await open();
    for (let i = 0; i < 20; i++) {
      const made = s.copies.make(s.names(`web.${i}.0`), ["other", "key"], s.owner);
      const started = s.reads();
      while (s.reads() === started) await new Promise(setImmediate); // the first secret has been read
      s.values.set("other", `new ${i}`);
      await Promise.all([made, s.copies.refresh("fn", "other")]);
      assert.equal(await s.read(`web.${i}.0`, "other"), `new ${i}`);
    }
  });

  test("that went away meanwhile are no failure", async () => {
    await using s = await open();
    await s.copies.make(s.names("web.1.0"), ["key"], s.owner);
    await Promise.all([
      s.copies.refresh("fn", "key"),
      rm(s.names("web.1.0").secretsDir, { recursive: true, force: true }),
    ]);
    await s.copies.refresh("fn", "key");
  });
});
