/** Limits of calls per function, and that nothing stays counted, however a call ends. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { answerText, openRawGateway, type RawGateway, requestText, type Wire } from "../../support/raw-gateway.ts";

suite("calls beyond the limit", () => {
  test("wait in the order they came, and those beyond the queue are refused with a time to come back", async () => {
    await using g = await openRawGateway({ limits: { maxInFlight: 2, queue: 3 } });
    const callers: Wire[] = [];
    for (let i = 0; i < 6; i++) {
      const caller = await g.dial();
      caller.send(requestText(`GET /function/f/${i}`));
      callers.push(caller);
      while (g.entry.calls.started <= i) await new Promise(setImmediate);
    }
    const refused = await callers[5]!.until(/queue\n/);
    assert.match(refused, /^HTTP\/1\.1 429 Too Many Requests\r\n/);
    assert.match(refused, /\r\nRetry-After: \d+\r\n/);
    assert.match(refused, /\r\nX-OpenFaaS-Internal: napd\r\n/);
    assert.match(refused, /function f\.fn has 2 calls under way and 3 waiting/);
    const order: string[] = [];
    let running = 0;
    const serve = async () => {
      const fn = await g.accepted();
      for (;;) {
        order.push((await fn.until("\r\n\r\n")).split(" ")[1]!);
        assert.ok(++running <= 2);
        await new Promise(setImmediate);
        running--;
        fn.send(answerText("ok"));
        if (order.length >= 5) return;
      }
    };
    void serve().catch(() => {});
    void serve().catch(() => {});
    for (const caller of callers.slice(0, 5)) await caller.until("ok");
    assert.deepEqual(order, ["/0", "/1", "/2", "/3", "/4"]);
    await g.assertIdle();
  });

  test("leave the queue when their caller leaves", async () => {
    await using g = await openRawGateway({ limits: { maxInFlight: 1, queue: 1 } });
    const [first, second, third] = [await g.dial(), await g.dial(), await g.dial()];
    first.send(requestText("GET /function/f/1"));
    const fn = await g.accepted();
    await fn.head();
    second.send(requestText("GET /function/f/2"));
    while (g.entry.admission.waiting === 0) await new Promise(setImmediate);
    second.socket.destroy();
    while (g.entry.admission.waiting === 1) await new Promise(setImmediate);
    third.send(requestText("GET /function/f/3"));
    while (g.entry.admission.waiting === 0) await new Promise(setImmediate);
    fn.send(answerText("one"));
    assert.match(await fn.until("\r\n\r\n"), /^GET \/3 /);
    fn.send(answerText("three"));
    await third.until("three");
    await g.assertIdle();
  });

  test("that wait too long are answered 504, which says what they waited for", async () => {
    await using g = await openRawGateway({ limits: { maxInFlight: 1 } });
    const [first, second] = [await g.dial(), await g.dial()];
    first.send(requestText("GET /function/f/1"));
    await (await g.accepted()).head();
    g.entry.policy = { ...g.entry.policy, timeoutMs: 100 };
    second.send(requestText("GET /function/f/2"));
    assert.match(await second.until(/turn\n/), /^HTTP\/1\.1 504 [\s\S]*within 0\.1 s .*waiting for its turn/);
    first.socket.destroy();
    await g.assertIdle();
  });

  test("hold a place as long as a changed protocol lasts", async () => {
    await using g = await openRawGateway({ limits: { maxInFlight: 1, queue: 0 } });
    const [first, second] = [await g.dial(), await g.dial()];
    first.send(requestText("GET /function/f", ["Connection: Upgrade", "Upgrade: x"]));
    const fn = await g.accepted();
    await fn.head();
    fn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
    await first.head();
    second.send(requestText("GET /function/f"));
    assert.match(await second.until(/queue\n/), /^HTTP\/1\.1 429 /);
    first.socket.resetAndDestroy();
    await g.assertIdle();
    second.send(requestText("GET /function/f"));
    await (await g.accepted()).head();
  });
});

suite("a body beyond the limit", () => {
  const options = { limits: { maxBodyBytes: 10 } };

  test("that says so is refused at once, and the function hears nothing", async () => {
    await using g = await openRawGateway(options);
    const caller = await g.dial();
    caller.send(requestText("POST /function/f", ["Content-Length: 11"]));
    const text = await caller.until(/limit\n/);
    assert.match(text, /^HTTP\/1\.1 413 [\s\S]*larger than the 10 bytes that function f\.fn takes/);
    assert.equal(g.connections, 0);
    await g.assertIdle();
  });

  test("that comes in chunks is refused as it passes the limit, and the function's request is cut", async () => {
    await using g = await openRawGateway(options);
    const caller = await g.dial();
    caller.send(requestText("POST /function/f", ["Transfer-Encoding: chunked"], "a\r\n0123456789\r\n"));
    const fn = await g.accepted();
    await fn.until("0123456789\r\n");
    caller.send("1\r\nx\r\n");
    const text = await caller.until(/limit\n/);
    assert.match(text, /^HTTP\/1\.1 413 /);
    assert.match(text, /\r\nConnection: close\r\n/);
    assert.doesNotMatch(await fn.rest(), /0\r\n\r\n$/);
    await caller.rest();
    await g.assertIdle();
  });

  test("by nothing passes", async () => {
    await using g = await openRawGateway(options);
    const caller = await g.dial();
    caller.send(requestText("POST /function/f", ["Content-Length: 10"], "0123456789"));
    await (await g.accepted()).until("0123456789");
  });
});

suite("nothing stays counted", () => {
  type Step = (g: RawGateway, caller: Wire) => Promise<void>;
  const started = (g: RawGateway) => async () => {
    while (g.entry.calls.started === 0) await new Promise(setImmediate);
  };
  const post = requestText("POST /function/f", ["Content-Length: 100"], "some");
  const rows: { says: string; refuses?: boolean; code: number; steps: Step }[] = [
    {
      says: "when the caller leaves while nobody is awake",
      code: 499,
      async steps(g, caller) {
        g.entry.routable = [];
        caller.send(requestText("GET /function/f"));
        await started(g)();
        caller.socket.destroy();
      },
    },
    {
      says: "when the caller leaves as the replica refuses",
      refuses: true,
      code: 499,
      async steps(g, caller) {
        caller.send(post);
        await started(g)();
        caller.socket.destroy();
      },
    },
    {
      says: "when the caller leaves before the head is sent",
      code: 499,
      async steps(g, caller) {
        caller.send(post);
        await started(g)();
        caller.socket.destroy();
      },
    },
    {
      says: "when the caller leaves within the body",
      code: 499,
      async steps(g, caller) {
        caller.send(post);
        const fn = await g.accepted();
        await fn.until("some");
        caller.socket.destroy();
        await fn.rest();
      },
    },
    {
      says: "when the caller resets within the body",
      code: 499,
      async steps(g, caller) {
        caller.send(post);
        const fn = await g.accepted();
        await fn.until("some");
        caller.socket.resetAndDestroy();
        await fn.rest();
      },
    },
    {
      says: "when the caller says nothing more and the function does not answer",
      code: 499,
      async steps(g, caller) {
        caller.send(requestText("GET /function/f"));
        const fn = await g.accepted();
        await fn.head();
        caller.socket.end();
        await fn.rest();
      },
    },
    {
      says: "when the caller leaves within the answer",
      code: 200,
      async steps(g, caller) {
        caller.send(requestText("GET /function/f"));
        const fn = await g.accepted();
        await fn.head();
        fn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        await caller.until("part");
        caller.socket.destroy();
        await fn.rest();
      },
    },
    {
      says: "when the function leaves within the body",
      code: 502,
      async steps(g, caller) {
        caller.send(post);
        const fn = await g.accepted();
        await fn.until("some");
        fn.socket.resetAndDestroy();
        await caller.until(/complete\n/);
      },
    },
    {
      says: "when the function leaves within the answer",
      code: 200,
      async steps(g, caller) {
        caller.send(requestText("GET /function/f"));
        const fn = await g.accepted();
        await fn.head();
        fn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        await caller.until("part");
        fn.socket.resetAndDestroy();
        await caller.rest();
      },
    },
    {
      says: "when both leave at once",
      code: 499,
      async steps(g, caller) {
        caller.send(post);
        const fn = await g.accepted();
        await fn.until("some");
        fn.socket.resetAndDestroy();
        caller.socket.resetAndDestroy();
      },
    },
    {
      says: "when the replica is taken down in the middle",
      code: 502,
      async steps(g, caller) {
        caller.send(requestText("GET /function/f"));
        await (await g.accepted()).head();
        await g.entry.routable[0]!.disconnect();
        await caller.until(/stopped\n/);
      },
    },
    {
      says: "when the caller leaves with a second request behind the first",
      code: 499,
      async steps(g, caller) {
        caller.send(requestText("GET /function/f/1") + requestText("GET /function/f/2"));
        const [first, second] = [await g.accepted(), await g.accepted()];
        await Promise.all([first.head(), second.head()]);
        caller.socket.destroy();
        await Promise.all([first.rest(), second.rest()]);
      },
    },
    {
      says: "when the caller leaves with a second answer waiting behind the first",
      code: 499,
      async steps(g, caller) {
        caller.send(requestText("GET /function/f/1") + requestText("POST /function/f/2", ["Content-Length: 0"]));
        const wires = [await g.accepted(), await g.accepted()];
        for (const wire of wires) if ((await wire.head()).startsWith("POST")) wire.send(answerText("two"));
        caller.socket.destroy();
      },
    },
    {
      says: "when the time is up",
      code: 504,
      async steps(g, caller) {
        caller.send(requestText("GET /function/f"));
        const fn = await g.accepted();
        await fn.rest();
        await caller.until(/\)\n/);
      },
    },
  ];
  for (const { says, refuses, code, steps } of rows)
    test(says, async () => {
      const timeoutMs = code === 504 ? 100 : 10_000;
      const wake = () => new Promise<void>(() => {});
      await using g = await openRawGateway({
        limits: { maxInFlight: 5 },
        timeoutMs,
        wake,
        ...(refuses && { refuses }),
      });
      await steps(g, await g.dial());
      await g.assertIdle();
      assert.ok(g.entry.calls.byCode.has(code), [...g.entry.calls.byCode.keys()].join());
    });
});
