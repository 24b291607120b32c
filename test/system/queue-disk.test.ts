/** The queue's database on a file system that is full. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { isAppError } from "../../src/base/errors.ts";
import { SqliteStore } from "../../src/queue/sqlite.ts";
import { tmpDir } from "../support/tmp.ts";

const run = promisify(execFile);

suite("the queue on a full disk", () => {
  test("refuses what it cannot keep, and has all that it took when there is room again", async () => {
    await using dir = await tmpDir();
    await run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", dir.path]);
    await using store = await SqliteStore.open(dir.path);
    const body = { bytes: 60_000, data: new Uint8Array(60_000), file: null };
    const message = { lane: "call", fn: "web.fn", target: "/", headers: [], callback: null, created: 1 } as const;
    const put = (i: number) => store.put({ ...message, callId: `call-${i}`, body });
    let taken = 0;
    await assert.rejects(
      async () => {
        for (; taken < 1000; taken++) await put(taken);
      },
      (e) => isAppError(e, "DISK_FULL"),
    );
    assert.ok(taken > 10, `${taken} were taken`);
    await run("mount", ["-o", "remount,size=16m", dir.path]);
    const { messages } = await store.take("call", "web.fn", 1000, 2);
    assert.equal(messages.length, taken);
    await put(1000);
  });
});
