/** Changes of protocol: WebSockets and whatever else is asked for with Upgrade. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { answerText, openRawGateway, type RawGatewayOptions, requestText } from "../../support/raw-gateway.ts";

const asks = ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: k"];
const agrees =
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n";

/** A tunnel that stands. */
async function open(options: RawGatewayOptions = {}) {
  const g = await openRawGateway(options);
  const caller = await g.dial();
  caller.send(requestText("GET /function/f/chat", asks));
  const fn = await g.accepted();
  await fn.head();
  fn.send(agrees);
  await caller.head();
  return { g, caller, fn, [Symbol.asyncDispose]: () => g[Symbol.asyncDispose]() };
}

suite("a change of protocol", () => {
  test("is asked for and agreed to with the headers of both sides, and counted as a call while it lasts", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f/chat?a=b", [...asks, "Origin: http://napd.example", "X-Call-Id: mine"]));
    const fn = await g.accepted();
    const request = await fn.head();
    assert.match(request, /^GET \/chat\?a=b HTTP\/1\.1\r\nHost: napd\.example\r\n/);
    assert.match(request, /\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n/);
    assert.match(request, /\r\nSec-WebSocket-Key: k\r\n/);
    assert.match(request, /\r\nX-Start-Time: \d{19}\r\n/);
    fn.send(agrees);
    const answer = await caller.head();
    assert.match(answer, /^HTTP\/1\.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n/);
    assert.match(answer, /\r\nSec-WebSocket-Accept: a\r\n/);
    assert.match(answer, /\r\nX-Call-Id: mine\r\nX-Start-Time: \d{19}\r\n/);
    assert.deepEqual([g.entry.calls.inFlight, g.entry.routable[0]!.inFlight], [1, 1]);
    caller.socket.end();
    await fn.rest();
    fn.socket.end();
    await g.assertIdle();
    assert.equal(g.entry.calls.byCode.get(101)?.count, 1);
  });

  test("carries bytes both ways at once, whatever they are", async () => {
    await using t = await open();
    t.caller.send("\x81\x00\r\n\r\nGET / HTTP/1.1\r\n");
    assert.equal(await t.fn.until("HTTP/1.1\r\n"), "\x81\x00\r\n\r\nGET / HTTP/1.1\r\n");
    t.fn.send("\xff\xfe");
    assert.equal(await t.caller.until("\xfe"), "\xff\xfe");
  });

  test("loses no byte that either side sends along with its head", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(`${requestText("GET /function/f", asks)}early one`);
    const fn = await g.accepted();
    await fn.head();
    fn.send(`${agrees}early two`);
    assert.equal(await caller.until("early two").then((text) => text.endsWith("early two")), true);
    assert.equal(await fn.until("early one"), "early one");
  });

  test("lets each direction end by itself", async () => {
    await using t = await open();
    t.caller.send("last words");
    t.caller.socket.end();
    assert.equal(await t.fn.rest(), "last words");
    assert.equal(t.g.entry.calls.inFlight, 1);
    t.fn.send("and the answer to them");
    t.fn.socket.end();
    assert.equal(await t.caller.rest(), "and the answer to them");
    await t.g.assertIdle();
  });

  test("holds back who sends faster than the other reads", async () => {
    await using t = await open();
    t.caller.socket.pause();
    const piece = Buffer.alloc(1024 * 1024, "x");
    const pieces = 100;
    let written = 0;
    const write = () => {
      while (written < pieces) {
        written++;
        if (!t.fn.socket.write(piece)) return;
      }
    };
    t.fn.socket.on("drain", write);
    write();
    let [before, same] = [-1, 0];
    while (same < 50) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      same = t.fn.socket.bytesWritten === before ? same + 1 : 0;
      before = t.fn.socket.bytesWritten;
    }
    assert.ok(before < (pieces / 2) * piece.length, `${before} bytes went into buffers`);
    let length = 0;
    t.caller.socket.removeAllListeners("data");
    const all = new Promise<void>((resolve) =>
      t.caller.socket.on("data", (chunk) => {
        length += chunk.length;
        if (length === pieces * piece.length) resolve();
      }),
    );
    t.caller.socket.resume();
    await all;
  });

  for (const [who, other] of [
    ["caller", "fn"],
    ["fn", "caller"],
  ] as const)
    test(`ends for both when the connection of the ${who === "fn" ? "function" : "caller"} breaks`, async () => {
      await using t = await open();
      t[who].socket.resetAndDestroy();
      await t[other].rest();
      await t.g.assertIdle();
    });

  test("ends when both sides have been silent for too long, not before", async () => {
    await using t = await open({ tunnelIdleMs: 300, timeoutMs: 200 });
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      t.fn.send(".");
      await t.caller.until(".");
    }
    await Promise.all([t.caller.rest(), t.fn.rest()]);
    await t.g.assertIdle();
  });

  for (const [says, answer] of [
    ["403", answerText("not you", "403 Forbidden")],
    ["200, as if it had not been asked", answerText("not you")],
    ["426 in chunks", "HTTP/1.1 426 Upgrade Required\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nnot you\r\n0\r\n\r\n"],
  ] as const)
    test(`that the function answers with ${says} is answered so`, async () => {
      await using g = await openRawGateway();
      const caller = await g.dial();
      caller.send(requestText("GET /function/f", asks));
      const fn = await g.accepted();
      await fn.head();
      fn.send(answer);
      const text = await caller.rest();
      assert.equal(text.slice(0, 12), answer.slice(0, 12));
      assert.match(text, /not you/);
      assert.match(text, /\r\nConnection: close\r\n/);
      assert.doesNotMatch(text, /x-openfaas-internal/i);
      await g.assertIdle();
    });

  test("that is refused with a large answer is answered with all of it", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f", asks));
    const fn = await g.accepted();
    await fn.head();
    fn.send(answerText("x".repeat(20_000_000), "400 Bad Request"));
    assert.equal((await caller.rest()).split("\r\n\r\n")[1]!.length, 20_000_000);
  });

  test("that the function does not answer in time is answered 504", async () => {
    await using g = await openRawGateway({ timeoutMs: 200 });
    const caller = await g.dial();
    caller.send(requestText("GET /function/f", asks));
    const fn = await g.accepted();
    assert.match(await caller.rest(), /^HTTP\/1\.1 504 [\s\S]*did not answer within 0\.2 s/);
    await fn.rest();
    await g.assertIdle();
  });

  for (const leaves of ["destroy", "resetAndDestroy", "end"] as const)
    test(`that nobody waits for any more is not waited for: ${leaves}`, async () => {
      await using g = await openRawGateway();
      const caller = await g.dial();
      caller.send(requestText("GET /function/f", asks));
      const fn = await g.accepted();
      await fn.head();
      caller.socket[leaves]();
      await fn.rest();
      await g.assertIdle();
    });

  test("of a function that does not exist is answered 404", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/ghost", asks));
    assert.match(await caller.rest(), /^HTTP\/1\.1 404 /);
  });

  for (const [says, headers, body] of [
    [
      "HTTP/2, which would be a way past the gateway",
      ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"],
      "",
    ],
    ["several protocols with HTTP/2 among them", ["Connection: Upgrade", "Upgrade: websocket, h2c"], ""],
    ["a protocol that Connection does not name", ["Connection: close", "Upgrade: websocket"], ""],
    ["a protocol along with a body", ["Connection: Upgrade", "Upgrade: websocket", "Content-Length: 2"], "hi"],
  ] as const)
    test(`to ${says} is passed over: the request is an ordinary one`, async () => {
      await using g = await openRawGateway();
      const caller = await g.dial();
      caller.send(requestText("POST /function/f", headers, body));
      const fn = await g.accepted();
      assert.doesNotMatch(await fn.head(), /upgrade|http2/i);
      fn.send(answerText("plain"));
      assert.match(await caller.until("plain"), /^HTTP\/1\.1 200 /);
    });

  test("is not kept when napd stops: its caller shall come back to the next one", async () => {
    const t = await open();
    await t.g[Symbol.asyncDispose]();
    await t.caller.rest();
  });
});
