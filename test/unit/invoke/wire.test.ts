/** What passes between caller and function, byte for byte, at both ends of the gateway. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { answerText, openRawGateway, requestText } from "../../support/raw-gateway.ts";

/** Lines of a head without those that differ from call to call. */
function lines(head: string): string[] {
  return head
    .trimEnd()
    .split("\r\n")
    .filter((line) => !/^(x-call-id|x-start-time|date|x-forwarded-for|keep-alive):/i.test(line));
}

suite("on the wire, a request", () => {
  test("has its target byte for byte, its headers in order, and the function's own host", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f/a%2Fb//%25/../;x?q=%20+&%zz=1", ["b: 1", "A: \xe4", "B: 2"]));
    const fn = await g.accepted();
    assert.deepEqual(lines(await fn.head()), [
      "GET /a%2Fb//%25/../;x?q=%20+&%zz=1 HTTP/1.1",
      `Host: 127.0.0.1:${g.upstreamPort}`,
      "b: 1",
      "A: \xe4",
      "B: 2",
      "X-Forwarded-Host: napd.example",
    ]);
    assert.equal(fn.received, "");
  });

  test("tells of the caller's address with its port", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const head = await (await g.accepted()).head();
    assert.ok(head.includes(`\r\nX-Forwarded-For: 127.0.0.1:${caller.socket.localPort}\r\n`), head);
  });

  test("in chunks is sent on as its chunks come, and its head before the first of them", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("POST /function/f", ["Transfer-Encoding: chunked"]));
    const fn = await g.accepted();
    assert.match(await fn.head(), /\r\nTransfer-Encoding: chunked\r\n/);
    caller.send("3\r\none\r\n");
    assert.equal(await fn.until("one\r\n"), "3\r\none\r\n");
    caller.send("5;x=y\r\ntw\r\no\r\n");
    assert.equal(await fn.until("o\r\n"), "5\r\ntw\r\no\r\n");
    caller.send("0\r\n\r\n");
    assert.equal(await fn.until("0\r\n\r\n"), "0\r\n\r\n");
  });

  test("may be answered before its body has come: the head goes to the function at once", async () => {
    await using g = await openRawGateway();
    for (const headers of [["Content-Length: 4"], ["Transfer-Encoding: chunked"]]) {
      const caller = await g.dial();
      caller.send(requestText("POST /function/f", headers));
      const fn = await g.accepted();
      await fn.head();
      fn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      assert.match(await caller.head(), /^HTTP\/1\.1 200 OK\r\n/);
      caller.socket.destroy();
      await fn.rest();
    }
    await g.assertIdle();
  });

  test("loses its trailers, and the promise of them", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    const body = "2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n";
    caller.send(
      requestText("POST /function/f", ["Transfer-Encoding: chunked", "Trailer: X-Sum", "TE: trailers"], body),
    );
    const fn = await g.accepted();
    assert.doesNotMatch(await fn.head(), /\r\n(te|trailer):/i);
    assert.equal(await fn.until("0\r\n\r\n"), "2\r\nhi\r\n0\r\n\r\n");
  });

  test("keeps its length however Connection names it, so that no byte of the body is taken for a request", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("POST /function/f", ["Connection: content-length, close", "Content-Length: 5"], "G / H"));
    const fn = await g.accepted();
    assert.match(await fn.head(), /\r\nContent-Length: 5\r\n/);
    assert.equal(await fn.until("G / H"), "G / H");
  });

  for (const method of ["TRACE", "CONNECT"])
    test(`with ${method} is not for functions`, async () => {
      await using g = await openRawGateway();
      const caller = await g.dial();
      caller.send(requestText(`${method} /function/f`));
      assert.match(await caller.until(/\r\n\r\n/), /^HTTP\/1\.1 40[05] /);
      assert.equal(g.connections, 0);
    });
});

suite("on the wire, an answer", () => {
  test("has the function's status, headers in order and body, and the platform's headers", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const fn = await g.accepted();
    await fn.head();
    const headers = ["x-b: 1", "X-A: \xe4\xff", "X-B: 2", "X-Duration-Seconds: 0.25", "Set-Cookie: a", "Set-Cookie: b"];
    fn.send(answerText("\x00\xff\x80", "201 Created", headers));
    const head = await caller.until("\x00\xff\x80");
    assert.deepEqual(lines(head.slice(0, head.indexOf("\r\n\r\n"))), [
      "HTTP/1.1 201 Created",
      "Content-Length: 3",
      "Content-Type: text/plain",
      ...headers,
      "Connection: keep-alive",
    ]);
    assert.match(head, /\r\nX-Call-Id: [-0-9a-f]{36}\r\nX-Start-Time: \d{19}\r\n/);
  });

  test("is sent on as it comes: the head before the body, each piece before the next", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f", ["Accept: application/x-ndjson"]));
    const fn = await g.accepted();
    await fn.head();
    fn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n");
    assert.match(await caller.head(), /\r\nTransfer-Encoding: chunked\r\n/);
    for (const piece of ["data: 1\n\n", "{}\n"]) {
      fn.send(`${piece.length.toString(16)}\r\n${piece}\r\n`);
      assert.equal(await caller.until(`${piece}\r\n`), `${piece.length.toString(16)}\r\n${piece}\r\n`);
    }
    fn.send("0\r\n\r\n");
    await caller.until("0\r\n\r\n");
    await g.assertIdle();
  });

  test("that ends with its connection is ended in chunks, which says that it is whole", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const fn = await g.accepted();
    await fn.head();
    fn.send("HTTP/1.1 200 OK\r\n\r\nall of it");
    fn.socket.end();
    assert.match(await caller.until("0\r\n\r\n"), /9\r\nall of it\r\n0\r\n\r\n$/);
  });

  test("loses its trailers, its length beside chunks, and interim answers before it", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const fn = await g.accepted();
    await fn.head();
    fn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
    fn.send(
      "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    const text = await caller.until("0\r\n\r\n");
    assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
    assert.doesNotMatch(text, /content-length|x-sum|link/i);
    assert.match(text, /\r\n\r\n2\r\nhi\r\n0\r\n\r\n$/);
  });

  for (const [says, request, answer] of [
    ["to HEAD", "HEAD /function/f", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"],
    ["204", "GET /function/f", "HTTP/1.1 204 No Content\r\n\r\n"],
    ["304 that tells of a length", "GET /function/f", "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n"],
  ] as const)
    test(`${says} has no body: both connections serve the next call`, async () => {
      await using g = await openRawGateway();
      const caller = await g.dial();
      caller.send(requestText(request));
      const fn = await g.accepted();
      await fn.head();
      fn.send(answer);
      const head = await caller.head();
      assert.equal(/content-length: 12/i.test(head), /Content-Length: 12/.test(answer));
      caller.send(requestText("GET /function/f/next"));
      assert.match(await fn.head(), /^GET \/next /);
      fn.send(answerText("next"));
      assert.match(await caller.until("next"), /^HTTP\/1\.1 200 /);
      assert.equal(g.connections, 1);
    });

  test("in one packet with another one behind it loses that, and its connection", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const fn = await g.accepted();
    await fn.head();
    fn.send(answerText("mine") + answerText("poison"));
    await caller.until("mine");
    caller.send(requestText("GET /function/f"));
    const second = await g.accepted();
    await second.head();
    second.send(answerText("clean"));
    assert.doesNotMatch(await caller.until("clean"), /poison/);
    await fn.rest();
  });

  test("that arrives byte by byte is the same", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const fn = await g.accepted();
    await fn.head();
    fn.socket.setNoDelay(true);
    const text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n";
    for (const byte of text) {
      fn.send(byte);
      await new Promise(setImmediate);
    }
    const answer = await caller.until("0\r\n\r\n");
    assert.equal(
      answer.slice(answer.indexOf("\r\n\r\n") + 4).replace(/[0-9a-f]+\r\n([a-d]+)\r\n/g, "$1"),
      "abcd0\r\n\r\n",
    );
  });

  for (const [says, text] of [
    ["no HTTP", "hello\r\n\r\n"],
    ["a status that is none", "HTTP/1.1 20 OK\r\n\r\n"],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    ["a header without a name", "HTTP/1.1 200 OK\r\n: x\r\n\r\n"],
    ["a protocol that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"],
    ["only its beginning", "HTTP/1.1 200 OK\r\nContent-"],
  ] as const)
    test(`that is ${says} is answered 502, and its connection is not used again`, async () => {
      await using g = await openRawGateway();
      const caller = await g.dial();
      caller.send(requestText("POST /function/f", ["Content-Length: 0"]));
      const fn = await g.accepted();
      await fn.head();
      fn.send(text);
      if (says === "only its beginning") fn.socket.end();
      const head = await caller.head();
      assert.match(head, /^HTTP\/1\.1 502 /);
      assert.match(head, /\r\nX-OpenFaaS-Internal: napd\r\n/);
      await fn.rest();
      await g.assertIdle();
    });

  for (const [says, text] of [
    ["by length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart"],
    ["in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"],
    ["in chunks that are none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n"],
  ] as const)
    test(`${says} that breaks off is broken off: nobody takes a part for the whole`, async () => {
      await using g = await openRawGateway();
      const caller = await g.dial();
      caller.send(requestText("GET /function/f"));
      const fn = await g.accepted();
      await fn.head();
      fn.send(text);
      if (!says.endsWith("none")) await caller.until("part");
      fn.socket.end();
      assert.doesNotMatch(await caller.rest(), /0\r\n\r\n$/);
      await g.assertIdle();
    });

  test("to an old client that breaks off resets the connection, whose plain end would say that it is whole", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send("GET /function/f HTTP/1.0\r\n\r\n");
    const fn = await g.accepted();
    await fn.head();
    fn.send("HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
    await caller.until("part");
    const broken = new Promise<NodeJS.ErrnoException>((resolve) => caller.socket.once("error", resolve));
    fn.socket.destroy();
    assert.equal((await broken).code, "ECONNRESET");
    assert.equal(caller.ended, false);
  });

  test("with Connection: close on the function's side leaves the caller's connection open, and the other way round", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("GET /function/f"));
    const first = await g.accepted();
    await first.head();
    first.send(answerText("one", "200 OK", ["Connection: close"]));
    assert.match(await caller.until("one"), /\r\nConnection: keep-alive\r\n/);
    await first.rest();
    caller.send(requestText("GET /function/f", ["Connection: close"]));
    const second = await g.accepted();
    assert.doesNotMatch(await second.head(), /\r\nConnection:/);
    second.send(answerText("two"));
    assert.match(await caller.rest(), /\r\nConnection: close\r\n[\s\S]*two$/);
    const next = await g.dial();
    next.send(requestText("GET /function/f/next"));
    assert.match(await second.head(), /^GET \/next /);
  });

  test("to an old client is ended by the end of the connection", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send("GET /function/f HTTP/1.0\r\n\r\n");
    const fn = await g.accepted();
    assert.match(await fn.head(), /^GET \/ HTTP\/1\.1\r\n/);
    fn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    const text = await caller.rest();
    assert.match(text, /\r\n\r\nhi$/);
    assert.doesNotMatch(text, /transfer-encoding/i);
  });
});

suite("a caller who asks before sending the body", () => {
  const asks = ["Content-Length: 4", "Expect: 100-continue"];

  test("is told to go on once the function's connection stands, and the function is not asked", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("POST /function/f", asks));
    const fn = await g.accepted();
    assert.doesNotMatch(await fn.head(), /expect/i);
    assert.equal(await caller.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    caller.send("body");
    await fn.until("body");
    fn.send(answerText("done"));
    assert.match(await caller.until("done"), /^HTTP\/1\.1 200 /);
  });

  for (const [says, path, options] of [
    ["that is too large", "/function/f", { limits: { maxBodyBytes: 3 } }],
    ["for a function that does not exist", "/function/ghost", {}],
    ["for which there is no place", "/function/f", { limits: { maxInFlight: 1, queue: 0 } }],
  ] as const)
    test(`${says} is refused without being told to go on, and the connection ends`, async () => {
      await using g = await openRawGateway(options);
      if (says.endsWith("place")) {
        (await g.dial()).send(requestText("GET /function/f"));
        await (await g.accepted()).head();
      }
      const caller = await g.dial();
      caller.send(requestText(`POST ${path}`, asks));
      const text = await caller.rest();
      assert.match(text, /^HTTP\/1\.1 4\d\d /);
      assert.match(text, /\r\nConnection: close\r\n/);
    });
});

test("an old client is not told to go on, which it would take for the answer", async () => {
  await using g = await openRawGateway();
  const caller = await g.dial();
  caller.send("POST /function/f HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
  const fn = await g.accepted();
  await fn.until("body");
  fn.send(answerText("done"));
  assert.match(await caller.rest(), /^HTTP\/1\.[01] 200 /);
});

suite("an answer that does not wait for the whole body", () => {
  test("is delivered although the caller goes on sending, and then the connection ends", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("POST /function/f", ["Content-Length: 100000000"], "beginning"));
    const fn = await g.accepted();
    await fn.until("beginning");
    fn.send(answerText("too much", "413 Payload Too Large", ["Connection: close"]));
    fn.socket.end();
    let sent = 0;
    const flood = () => {
      while (!caller.ended && sent < 100_000_000 && caller.socket.write(Buffer.alloc(65536))) sent += 65536;
    };
    caller.socket.on("drain", flood);
    flood();
    assert.match(await caller.until("too much"), /^HTTP\/1\.1 413 /);
    await caller.rest();
    await g.assertIdle();
  });

  test("keeps the connection when what is left of the body is little", async () => {
    await using g = await openRawGateway();
    const caller = await g.dial();
    caller.send(requestText("POST /function/f", ["Content-Length: 1000"], "x".repeat(10)));
    const fn = await g.accepted();
    await fn.until("x".repeat(10));
    fn.send(answerText("no"));
    await caller.until("no");
    caller.send("x".repeat(990) + requestText("GET /function/f/next"));
    const next = await g.accepted();
    assert.match(await next.head(), /^GET \/next /);
    next.send(answerText("yes"));
    await caller.until("yes");
  });
});
