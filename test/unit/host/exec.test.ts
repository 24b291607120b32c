import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { execute, run } from "../../../src/host/exec.ts";

const sh = (script: string, options = {}) => run("sh", ["-c", script], options);
const isHostCommand = (text: RegExp) => (e: unknown) => isAppError(e, "HOST_COMMAND") && text.test(e.message);

suite("running a program of this machine", () => {
  test("resolves with its standard output", async () => assert.equal(await sh("printf 'a\\nb'"), "a\nb"));
  test("gives it the input, also more than a pipe holds", async () => {
    const input = "x".repeat(300_000);
    assert.equal(await sh("cat", { input }), input);
  });
  test("a program that does not read its input is no error", async () => {
    assert.equal(await sh("echo done", { input: "x".repeat(300_000) }), "done\n");
  });
  test("the environment is its own, with what the caller adds", async () => {
    process.env.NAPD_TEST_SECRET = "s3cret";
    const lines = (await sh("env", { env: { CNI_COMMAND: "ADD" } })).split("\n");
    assert.ok(lines.includes("CNI_COMMAND=ADD") && lines.includes("LC_ALL=C"));
    assert.ok(!lines.join().includes("s3cret"));
  });

  test("a failure names the command and why", async () => {
    await assert.rejects(sh("echo no such thing >&2; exit 3"), isHostCommand(/sh -c .* failed: no such thing/));
  });
  test("a silent failure names the exit code", async () => {
    await assert.rejects(sh("exit 3"), isHostCommand(/exit code 3/));
  });
  test("a program that is not there", async () => {
    await assert.rejects(run("no-such-program", ["x"]), isHostCommand(/no-such-program x failed: .*ENOENT/));
  });
  test("a program that is killed", async () => {
    await assert.rejects(sh("kill -9 $$"), isHostCommand(/ended by SIGKILL/));
  });

  test("an exit code is a result for execute", async () => {
    assert.deepEqual(await execute("sh", ["-c", "echo o; echo e >&2; exit 7"]), {
      code: 7,
      stdout: "o\n",
      stderr: "e\n",
    });
  });

  test("a timeout ends its children too", async () => {
    const before = performance.now();
    await assert.rejects(sh("sleep 30 & sleep 30; true", { timeoutMs: 50 }), isHostCommand(/no answer within 50 ms/));
    assert.ok(performance.now() - before < 5000);
  });
  test("an abort rejects with the caller's reason", async () => {
    const abort = new AbortController();
    const reason = new Error("enough");
    const running = sh("sleep 30 & sleep 30", { signal: abort.signal });
    setTimeout(() => abort.abort(reason), 30);
    await assert.rejects(running, reason);
    await assert.rejects(sh("true", { signal: abort.signal }), reason);
  });
  test("endless output is cut", async () => {
    await assert.rejects(run("yes", []), isHostCommand(/printed more than \d+ bytes/));
  });
});
