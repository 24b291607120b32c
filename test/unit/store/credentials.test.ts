import assert from "node:assert/strict";
import { stat, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { openCredentials } from "../../../src/store/credentials.ts";
import { tmpDir } from "../../support/tmp.ts";

suite("the administrator's credentials", () => {
  test("are generated once, and are the same ever after", async () => {
    await using dir = await tmpDir();
    const first = await openCredentials(`${dir.path}/credentials`);
    assert.equal(first.user, "admin");
    assert.match(first.password, /^[A-Za-z0-9]{63}$/);
    assert.deepEqual(await openCredentials(`${dir.path}/credentials`), first);
  });

  test("are different on every machine", async () => {
    await using one = await tmpDir();
    await using two = await tmpDir();
    assert.notEqual((await openCredentials(one.path)).password, (await openCredentials(two.path)).password);
  });

  test("are readable for their owner only", async () => {
    await using dir = await tmpDir();
    await openCredentials(`${dir.path}/credentials`);
    const mode = async (path: string) => (await stat(`${dir.path}/credentials${path}`)).mode & 0o777;
    assert.deepEqual(
      [await mode(""), await mode("/basic-auth-user"), await mode("/basic-auth-password")],
      [0o700, 0o600, 0o600],
    );
  });

  test("that are there already are kept; white space around them does not count", async () => {
    await using dir = await tmpDir();
    await writeFile(`${dir.path}/basic-auth-user`, "  root\n");
    await writeFile(`${dir.path}/basic-auth-password`, "correct horse\r\n");
    assert.deepEqual(await openCredentials(dir.path), { user: "root", password: "correct horse" });
  });

  test("of which one is there get the other", async () => {
    await using dir = await tmpDir();
    await writeFile(`${dir.path}/basic-auth-password`, "mine");
    assert.deepEqual(await openCredentials(dir.path), { user: "admin", password: "mine" });
  });

  test("that are empty are refused by file: an empty password would let everybody in", async () => {
    await using dir = await tmpDir();
    await writeFile(`${dir.path}/basic-auth-password`, " \n");
    await assert.rejects(
      openCredentials(dir.path),
      (e) => isAppError(e, "CONFIG") && e.message.includes(`${dir.path}/basic-auth-password is empty`),
    );
  });
});
