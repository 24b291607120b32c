/** What is tried again, and what is not. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { answerText, openRawGateway, requestText } from "../../support/raw-gateway.ts";

suite("a replica that refuses", () => {
  test("is doubted and sent nothing more, and the next one has the call, body and all", async () => {
    const woken = Promise.withResolvers<void>();
    await using g = await openRawGateway();
    await using dead = await openRawGateway({ refuses: true, wake: () => woken.promise });
    const [good] = g.entry.routable;
    const [bad] = dead.entry.routable;
    dead.entry.routable = [bad!, good!];
    const caller = await dead.dial();
    caller.send(requestText("POST /function/f", ["Content-Length: 4"], "body"));
    const fn = await g.accepted();
    assert.match(await fn.until("body"), /^POST \/ /);
    assert.deepEqual(dead.doubted, [bad]);
    assert.deepEqual(dead.entry.routable, [good]);
    fn.send(answerText("done"));
    await caller.until("done");
    await dead.assertIdle();
  });

  test("is waited for when there is no other", async () => {
    const woken = Promise.withResolvers<void>();
    await using g = await openRawGateway();
    await using dead = await openRawGateway({ refuses: true, wake: () => woken.promise });
    const caller = await dead.dial();
    caller.send(requestText("POST /function/f", ["Transfer-Encoding: chunked"], "4\r\nbody\r\n0\r\n\r\n"));
    while (dead.doubted.length === 0) await new Promise(setImmediate);
    dead.entry.routable = g.entry.routable;
    woken.resolve();
    const fn = await g.accepted();
    await fn.until("4\r\nbody\r\n0\r\n\r\n");
    fn.send(answerText("done"));
    await caller.until("done");
    await dead.assertIdle();
  });

  test("again and again is given up, with a word that says so", async () => {
    await using g = await openRawGateway({ refuses: true, replicas: 9 });
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const head = await caller.until(/refused the connection\n/);
    assert.match(head, /^HTTP\/1\.1 502 [\s\S]*X-OpenFaaS-Internal: napd/);
    assert.equal(g.doubted.length, 5);
    await g.assertIdle();
  });

  test("that comes back as the time is up is sent nothing: the call has been answered", async () => {
    let wake = () => {};
    await using g = await openRawGateway();
    await using dead = await openRawGateway({ timeoutMs: 100, wake: () => new Promise((resolve) => (wake = resolve)) });
    dead.entry.routable = [];
    const caller = await dead.dial();
    caller.send(requestText("GET /function/f"));
    while (dead.entry.calls.started === 0) await new Promise(setImmediate);
    const { socket } = caller;
    socket.pause(); // nobody reads the answer yet
    const ended = caller.until(/waking up\n/);
    while (dead.entry.calls.inFlight > 0) await new Promise(setImmediate);
    dead.entry.routable = g.entry.routable;
    wake();
    socket.resume();
    assert.match(await ended, /^HTTP\/1\.1 504 /);
    await dead.assertIdle();
    assert.equal(g.connections, 0);
  });

  test("until the time is up is answered 504", async () => {
    await using g = await openRawGateway({ refuses: true, timeoutMs: 200, wake: () => new Promise(() => {}) });
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    assert.match(await caller.until(/waking up\n/), /^HTTP\/1\.1 504 [\s\S]*did not answer within 0\.2 s/);
    await g.assertIdle();
  });
});

suite("a kept connection that the function closes as a request comes", () => {
  /** A gateway with one connection that has served. */
  async function openUsed() {
    const g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f/first"));
    const fn = await g.accepted();
    await fn.head();
    fn.send(answerText("first"));
    await caller.until("first");
    return { g, caller, fn, [Symbol.asyncDispose]: () => g[Symbol.asyncDispose]() };
  }

  for (const [says, request, seen] of [
    ["GET", requestText("GET /function/f"), /^GET \/ /],
    ["HEAD", requestText("HEAD /function/f"), /^HEAD \/ /],
    ["DELETE without a body", requestText("DELETE /function/f"), /^DELETE \/ /],
    ["PUT with a body", requestText("PUT /function/f", ["Content-Length: 4"], "body"), /^PUT \/ [\s\S]*\r\n\r\nbody$/],
    [
      "PUT with a body in chunks",
      requestText("PUT /function/f", ["Transfer-Encoding: chunked"], "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"),
      /^PUT \/ [\s\S]*\r\n\r\n(2\r\nbo\r\n2\r\ndy|4\r\nbody)\r\n0\r\n\r\n$/,
    ],
  ] as const)
    test(`does not fail ${says}: it goes over a new one`, async () => {
      await using t = await openUsed();
      t.caller.send(request);
      await t.fn.head();
      t.fn.socket.resetAndDestroy();
      const next = await t.g.accepted();
      const last = seen.source.endsWith("body$")
        ? "body"
        : seen.source.endsWith("\\r\\n$")
          ? "\r\n0\r\n\r\n"
          : "\r\n\r\n";
      assert.match(await next.until(last), seen);
      next.send("HTTP/1.1 204 No Content\r\n\r\n");
      assert.match(await t.caller.head(), /^HTTP\/1\.1 204 /);
      await t.g.assertIdle();
    });

  test("fails POST, which the function may have begun to work on", async () => {
    await using t = await openUsed();
    t.caller.send(requestText("POST /function/f", ["Content-Length: 4"], "body"));
    await t.fn.until("body");
    t.fn.socket.resetAndDestroy();
    assert.match(await t.caller.until(/complete\n/), /^HTTP\/1\.1 502 /);
    assert.equal(t.g.connections, 1);
    await t.g.assertIdle();
  });

  test("is tried again once, not twice", async () => {
    await using t = await openUsed();
    t.caller.send(requestText("GET /function/f"));
    await t.fn.head();
    t.fn.socket.resetAndDestroy();
    const next = await t.g.accepted();
    await next.head();
    next.socket.resetAndDestroy();
    assert.match(await t.caller.until(/complete\n/), /^HTTP\/1\.1 502 /);
    assert.equal(t.g.connections, 2);
  });

  test("fails GET once the answer has begun", async () => {
    await using t = await openUsed();
    t.caller.send(requestText("GET /function/f"));
    await t.fn.head();
    t.fn.send("HTTP/1.1 200");
    t.fn.socket.end();
    assert.match(await t.caller.until(/complete\n/), /^HTTP\/1\.1 502 /);
  });

  test("before is not used", async () => {
    await using t = await openUsed();
    t.fn.socket.end();
    await t.fn.rest();
    t.caller.send(requestText("POST /function/f", ["Content-Length: 4"], "body"));
    const next = await t.g.accepted();
    await next.until("body");
  });

  test("is not there after the replica was frozen: what was kept is closed", async () => {
    await using t = await openUsed();
    await t.g.entry.routable[0]!.fallAsleep({ freeze: async () => {}, thaw: async () => {} });
    await t.fn.rest();
    t.caller.send(requestText("POST /function/f", ["Content-Length: 4"], "body"));
    await (await t.g.accepted()).until("body");
  });

  test("is not kept for long", async () => {
    await using t = await openUsed();
    await t.fn.rest();
  });
});

suite("a new connection that the function closes without an answer", () => {
  test("fails the call, whatever its method: the function has had it", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const fn = await g.accepted();
    await fn.head();
    fn.socket.destroy();
    assert.match(await caller.until(/complete\n/), /^HTTP\/1\.1 502 [\s\S]*X-OpenFaaS-Internal: napd/);
    assert.equal(g.connections, 1);
    await g.assertIdle();
  });

  test("because its process died is answered with the reason of that", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const fn = await g.accepted();
    await fn.head();
    fn.socket.destroy();
    const [replica] = g.entry.routable;
    replica!.lostBecause = "it ran out of memory";
    replica!.move(["ready"], "failed");
    assert.match(
      await caller.until(/memory\n/),
      /^HTTP\/1\.1 502 [\s\S]*function f\.fn did not answer: it ran out of memory/,
    );
  });
});
