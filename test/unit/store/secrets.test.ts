import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { SecretStore } from "../../../src/store/secrets.ts";
import { tmpDir } from "../../support/tmp.ts";

const everyByte = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

suite("a secret", () => {
  const values: { says: string; value: Buffer }[] = [
    { says: "empty", value: Buffer.alloc(0) },
    { says: "a word", value: Buffer.from("word") },
    { says: "with the newline at its end", value: Buffer.from("word\n") },
    { says: "with every byte there is", value: everyByte },
    { says: "of a megabyte", value: randomBytes(1024 * 1024) },
  ];
  for (const { says, value } of values)
    test(`${says} comes back byte for byte, also from a store opened later`, async () => {
      await using dir = await tmpDir();
      await new SecretStore(dir.path).put("fn", "key", value);
      assert.ok((await new SecretStore(dir.path).read("fn", "key"))!.equals(value));
    });

  test("is readable for its owner only, as is the directory", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(`${dir.path}/secrets`);
    await store.put("fn", "key", everyByte);
    await store.put("fn", "key", everyByte);
    const mode = async (path: string) => (await stat(`${dir.path}/secrets${path}`)).mode & 0o777;
    assert.deepEqual([await mode("/fn/key"), await mode("/fn"), await mode("")], [0o600, 0o700, 0o700]);
  });

  test("may have the longest name", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(dir.path);
    const name = "n".repeat(253);
    await store.put("fn", name, everyByte);
    assert.deepEqual(await store.list("fn"), [name]);
  });

  test("is replaced as a whole, and leaves nothing beside it", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(dir.path);
    await store.put("fn", "key", Buffer.from("a long old value"));
    await store.put("fn", "key", Buffer.from("new"));
    assert.equal(String(await store.read("fn", "key")), "new");
    assert.deepEqual(await readdir(`${dir.path}/fn`), ["key"]);
  });

  test("written by many at once has the value of one of them, whole", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(dir.path);
    const values = Array.from({ length: 20 }, (_, i) => String(i).repeat(10_000));
    await Promise.all(values.map((value) => store.put("fn", "key", Buffer.from(value))));
    assert.ok(values.includes(String(await store.read("fn", "key"))));
    assert.deepEqual(await readdir(`${dir.path}/fn`), ["key"]);
  });

  test("is gone when it is deleted; deleting says whether there was one", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(dir.path);
    await store.put("fn", "key", everyByte);
    assert.equal(await store.delete("fn", "key"), true);
    assert.equal(await store.read("fn", "key"), undefined);
    assert.equal(await store.delete("fn", "key"), false);
  });

  test("belongs to its namespace", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(dir.path);
    await store.put("one", "key", Buffer.from("1"));
    assert.equal(await store.read("two", "key"), undefined);
    assert.equal(await store.delete("two", "key"), false);
    assert.deepEqual(await store.list("two"), []);
    assert.equal(String(await store.read("one", "key")), "1");
  });

  const outside: [namespace: string, name: string][] = [
    ["fn", "../key"],
    ["fn", ".."],
    ["fn", "a/b"],
    ["fn", "/etc/passwd"],
    ["fn", ""],
    ["fn", "a\0b"],
    ["..", "key"],
    ["fn/..", "key"],
    ["", "key"],
    ["/", "key"],
  ];
  for (const [namespace, name] of outside)
    test(`cannot be ${JSON.stringify(name)} in ${JSON.stringify(namespace)}: no way leads out of the directory`, async () => {
      await using dir = await tmpDir();
      await writeFile(`${dir.path}/key`, "outside");
      const store = new SecretStore(`${dir.path}/secrets`);
      await assert.rejects(store.put(namespace, name, everyByte));
      await assert.rejects(store.read(namespace, name));
      await assert.rejects(store.delete(namespace, name));
      assert.deepEqual(await readdir(dir.path), ["key"]);
    });

  suite("through a symbolic link", () => {
    test("in place of its file is not read, not listed, and replaced without a trace in what the link leads to", async () => {
      await using dir = await tmpDir();
      const store = new SecretStore(`${dir.path}/secrets`);
      await store.put("fn", "real", everyByte);
      await writeFile(`${dir.path}/outside`, "outside");
      await symlink(`${dir.path}/outside`, `${dir.path}/secrets/fn/key`);
      assert.equal(await store.read("fn", "key"), undefined);
      assert.deepEqual(await store.list("fn"), ["real"]);
      await store.put("fn", "key", Buffer.from("mine"));
      assert.equal(String(await store.read("fn", "key")), "mine");
      await store.delete("fn", "key");
      assert.equal(await readFile(`${dir.path}/outside`, "utf8"), "outside");
    });

    test("in place of its namespace is refused in every way, and deleting all takes the link alone", async () => {
      await using dir = await tmpDir();
      const store = new SecretStore(`${dir.path}/secrets`);
      await mkdir(`${dir.path}/secrets`);
      await mkdir(`${dir.path}/outside`);
      await writeFile(`${dir.path}/outside/key`, "outside");
      await symlink(`${dir.path}/outside`, `${dir.path}/secrets/fn`);
      for (const work of [
        () => store.read("fn", "key"),
        () => store.list("fn"),
        () => store.put("fn", "key", everyByte),
        () => store.delete("fn", "key"),
      ])
        await assert.rejects(work, /is not a directory/);
      await store.deleteAll("fn");
      assert.deepEqual(await store.list("fn"), []);
      assert.equal(await readFile(`${dir.path}/outside/key`, "utf8"), "outside");
    });
  });

  test("that is a pipe or a directory is none", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(dir.path);
    await mkdir(`${dir.path}/fn/folder`, { recursive: true });
    execFileSync("mkfifo", [`${dir.path}/fn/pipe`]);
    assert.deepEqual([await store.read("fn", "folder"), await store.read("fn", "pipe")], [undefined, undefined]);
    assert.deepEqual(await store.list("fn"), []);
  });

  test("goes with all of its namespace, and with no other", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(dir.path);
    for (const namespace of ["one", "two"]) await store.put(namespace, "key", everyByte);
    await store.deleteAll("one");
    await store.deleteAll("one");
    assert.deepEqual([await store.list("one"), await store.list("two")], [[], ["key"]]);
    for (const namespace of ["", "..", "a/b"]) await assert.rejects(store.deleteAll(namespace));
  });

  test("is listed by name, in order; what is no secret is not listed", async () => {
    await using dir = await tmpDir();
    const store = new SecretStore(dir.path);
    for (const name of ["b", "a.pem", "C_3"]) await store.put("fn", name, everyByte);
    await writeFile(`${dir.path}/fn/.~left`, "of a crash");
    assert.deepEqual(await store.list("fn"), ["C_3", "a.pem", "b"]);
    assert.deepEqual(await store.list(".."), []);
  });
});
