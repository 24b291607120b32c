import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { ContainerdError } from "../../../../src/host/containerd/channel.ts";
import { SharedWork } from "../../../../src/host/image/shared-work.ts";
import { eachOf, isDiskFull } from "../../../../src/host/image/tools.ts";

const answer = (code: status, details: string) => {
  const cause: ServiceError = Object.assign(new Error(details), { code, details, metadata: new Metadata() });
  return new ContainerdError("Content/Write", cause);
};

suite("a full disk", () => {
  // As containerd 1.6 says it: a content write, an unpacking, its own database
  const write = "write /c/io.containerd.content.v1.content/ingest/12/data: no space left on device: unknown";
  const apply = "failed to extract layer: write /tmp/containerd-mount1/big: no space left on device: unknown";
  const quota = "write /c/metadata.db: disk quota exceeded";
  for (const text of [write, apply, quota]) test(text, () => assert.ok(isDiskFull(answer(status.UNKNOWN, text))));

  test("nothing else is", () => {
    assert.ok(!isDiskFull(answer(status.UNKNOWN, "failed to mount")));
    assert.ok(!isDiskFull(answer(status.NOT_FOUND, "blob no space left on device")));
    assert.ok(!isDiskFull(new Error("no space left on device")));
    assert.ok(isDiskFull(Object.assign(new Error("x"), { code: "ENOSPC" })));
  });
});

suite("several things at once", () => {
  test("never more than the limit, all of them", async () => {
    let now = 0;
    let most = 0;
    const done: number[] = [];
    await eachOf([1, 2, 3, 4, 5], 2, async (n) => {
      most = Math.max(most, ++now);
      await delay(2);
      now--;
      done.push(n);
    });
    assert.equal(most, 2);
    assert.deepEqual(done.toSorted(), [1, 2, 3, 4, 5]);
  });

  test("after a failure nothing begins, and what began has ended", async () => {
    const ended: number[] = [];
    const work = eachOf([1, 2, 3, 4], 2, async (n) => {
      if (n === 1) throw new Error("first");
      await delay(5);
      ended.push(n);
    });
    await assert.rejects(work, /first/);
    assert.deepEqual(ended, [2]);
  });
});

suite("shared work", () => {
  const endless = (seen: AbortSignal[]) => (ending: AbortSignal) => {
    seen.push(ending);
    return new Promise<never>((_, reject) => ending.addEventListener("abort", () => reject(ending.reason)));
  };

  test("one run for all who come while it goes on", async () => {
    const shared = new SharedWork<string, number>();
    let runs = 0;
    const work = async () => {
      await delay(2);
      return ++runs;
    };
    assert.deepEqual(await Promise.all([shared.join("a", work), shared.join("a", work)]), [1, 1]);
    assert.equal(await shared.join("a", work), 2);
  });

  test("it ends when the last has left; who comes then begins anew", async () => {
    const shared = new SharedWork<string, number>();
    const seen: AbortSignal[] = [];
    const [one, two] = [new AbortController(), new AbortController()];
    const first = shared.join("a", endless(seen), one.signal);
    const second = shared.join("a", endless(seen), two.signal);
    one.abort(new Error("one"));
    await assert.rejects(first, /one/);
    assert.ok(!seen[0]!.aborted);
    two.abort(new Error("two"));
    await assert.rejects(second, /two/);
    assert.ok(seen[0]!.aborted);
    assert.equal(await shared.join("a", async () => 7), 7);
    assert.equal(seen.length, 1);
    await shared.idle();
  });

  test("a failure is told to all, and is not kept", async () => {
    const shared = new SharedWork<string, number>();
    const fail = () => Promise.reject(new Error("bad"));
    const both = await Promise.allSettled([shared.join("a", fail), shared.join("a", fail)]);
    assert.ok(both.every((r) => r.status === "rejected"));
    assert.equal(await shared.join("a", async () => 1), 1);
  });
});
