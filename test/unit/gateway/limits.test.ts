/** Callers that are slow, many or greedy: real sockets, short limits. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { until } from "../../fakes/platform.ts";
import { type Caller, call, limits, openTestGateway, recorder, type Seen } from "../../support/gateway.ts";

const get = (target = "/function/f", more = "") => `GET ${target} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
const post = (more: string, body = "") => `POST /function/f HTTP/1.1\r\nHost: a\r\n${more}\r\n\r\n${body}`;

async function open(given: Partial<typeof limits>, answer?: (seen: Seen) => void) {
  const handlers = recorder(answer);
  const gateway = await openTestGateway({ limits: { ...limits, ...given } });
  gateway.serve(handlers);
  return {
    gateway,
    port: gateway.port,
    seen: handlers.seen,
    [Symbol.asyncDispose]: () => gateway[Symbol.asyncDispose](),
  };
}

/** The gateway has answered with these statuses, and closed. */
async function ended(caller: Caller, ...statuses: number[]): Promise<void> {
  await caller.ended;
  assert.deepEqual(caller.statuses(), statuses, caller.text());
}

const deadline = { timeout: 30_000 };

suite("a slow head", deadline, () => {
  test("that does not come at all is a 408, and closed", async () => {
    await using g = await open({ headersTimeoutMs: 100 });
    using caller = await call(g.port);
    await ended(caller, 408);
    assert.match(caller.text(), /gateway\.headers_timeout/);
  });

  test("that comes in drops is one too", async () => {
    await using g = await open({ headersTimeoutMs: 100 });
    using caller = await call(g.port, "GET /function/f HTTP/1.1\r\nHost: a\r\n");
    const dropping = setInterval(() => caller.socket.writable && caller.socket.write("X: y\r\n"), 5);
    await ended(caller, 408);
    clearInterval(dropping);
    assert.deepEqual(g.seen, []);
  });

  test("of a second request is answered behind the first", async () => {
    await using g = await open({ headersTimeoutMs: 100 }, () => {});
    using caller = await call(g.port, get() + get().slice(0, 20));
    using sentinel = await call(g.port, "G");
    await ended(sentinel, 408); // so the other one's time is over as well
    await until("the request is seen", () => g.seen.length === 1);
    assert.equal(caller.text(), "");
    g.seen[0]!.res.end("first");
    await ended(caller, 200, 408);
  });
});

suite("a slow body", deadline, () => {
  const bodies: [says: string, request: string][] = [
    ["of a length that does not come", post("Content-Length: 5")],
    ["of a length that stops", post("Content-Length: 5", "ab")],
    ["in chunks that do not come", post("Transfer-Encoding: chunked")],
    ["in chunks that stop", post("Transfer-Encoding: chunked", "5\r\nab")],
    ["whose last chunk does not come", post("Transfer-Encoding: chunked", "2\r\nab\r\n")],
    ["that was asked for by 100 Continue", post("Expect: 100-continue\r\nContent-Length: 5")],
  ];
  for (const [says, request] of bodies)
    test(`${says} is a 408, and closed; the handler is told`, async () => {
      await using g = await open({ bodyTimeoutMs: 100 });
      using caller = await call(g.port, request);
      await caller.ended;
      assert.equal(caller.statuses().at(-1), 408);
      assert.match(caller.text(), /gateway\.body_timeout/);
      await until("the handler's request is closed", () => g.seen.length === 1 && g.seen[0]!.req.destroyed);
      assert.equal(g.seen[0]!.whole, false);
    });

  test("that brings something in time may take longer than the limit", async () => {
    await using g = await open({ bodyTimeoutMs: 1000 });
    using caller = await call(g.port, post("Content-Length: 150"));
    for (let i = 0; i < 150; i++) {
      caller.socket.write("x");
      await delay(10);
    }
    await until("it is answered", () => caller.statuses().length === 1);
    assert.deepEqual(caller.statuses(), [200]);
  });

  test("may rest while the function answers already", async () => {
    await using g = await open({ bodyTimeoutMs: 100 });
    using caller = await call(g.port, post("Transfer-Encoding: chunked", "1\r\na\r\n"));
    await until("it is seen", () => g.seen.length === 1);
    g.seen[0]!.res.write("event");
    await until("the answer begins", () => caller.text().includes("event"));
    using sentinel = await call(g.port, post("Content-Length: 5"));
    await ended(sentinel, 408); // so the other one's time would be over as well
    caller.socket.write("1\r\nb\r\n0\r\n\r\n");
    await until("the rest arrives", () => g.seen[0]!.whole);
    assert.equal(g.seen[0]!.body, "ab");
  });

  test("is not the caller's fault while nobody takes it", async () => {
    await using gateway = await openTestGateway({ limits: { ...limits, bodyTimeoutMs: 100 } });
    const waiting: Seen["req"][] = [];
    const admin = (req: Seen["req"], res: Seen["res"]) => {
      waiting.push(req);
      req.once("end", () => res.end("whole"));
    };
    gateway.serve({
      invoke: (req) => void req.resume(),
      upgrade: () => assert.fail(),
      later: () => assert.fail(),
      admin,
    });
    using caller = await call(gateway.port, post("Content-Length: 5", "abc").replace("/function/f", "/held"));
    await until("it is seen", () => waiting.length === 1);
    using sentinel = await call(gateway.port, post("Content-Length: 5"));
    await ended(sentinel, 408);
    caller.socket.write("de");
    waiting[0]!.resume();
    await until("it is answered", () => caller.statuses().length === 1);
    assert.deepEqual(caller.statuses(), [200]);
  });
});

suite("connections", deadline, () => {
  test("without a request are closed after a while", async () => {
    await using g = await open({ keepAliveMs: 50 });
    using caller = await call(g.port, get());
    await ended(caller, 200);
    assert.match(caller.text(), /^Connection: keep-alive\r$/m);
  });

  test("beyond the limit are closed at once, and there is room again when one goes", async () => {
    await using g = await open({ maxConnections: 2 });
    using first = await call(g.port, get());
    using second = await call(g.port, get());
    await until("both are served", () => first.statuses().length + second.statuses().length === 2);
    using third = await call(g.port, get());
    await ended(third);
    first.socket.destroy();
    await until("another is served", async () => {
      using next = await call(g.port, get("/function/f", "Connection: close\r\n"));
      await next.ended;
      return next.statuses().length === 1;
    });
    second.socket.write(get());
    await until("the others are not disturbed", () => second.statuses().length === 2);
  });

  test("may be idle by the thousand without harm", async () => {
    await using g = await open({});
    const idle = await Promise.all(Array.from({ length: 1000 }, () => call(g.port)));
    using caller = await call(g.port, get("/function/f", "Connection: close\r\n"));
    await ended(caller, 200);
    for (const { socket } of idle) socket.destroy();
  });

  test("whose caller takes nothing of an answer are cut", async () => {
    const answer = Buffer.alloc(64 * 1024 * 1024);
    await using g = await open({ sendTimeoutMs: 200 }, ({ res }) => res.end(answer));
    using caller = await call(g.port);
    caller.socket.pause();
    caller.socket.write(get());
    await until("it is seen", () => g.seen.length === 1);
    await until("it is cut", () => g.seen[0]!.res.destroyed);
    assert.equal(g.seen[0]!.res.writableFinished, false);
  });

  test("whose caller takes a large answer go on to the end", async () => {
    const answer = Buffer.alloc(16 * 1024 * 1024, "x");
    await using g = await open({ sendTimeoutMs: 5000 }, ({ res }) => res.end(answer));
    using caller = await call(g.port, get("/function/f", "Connection: close\r\n"));
    await ended(caller, 200);
    assert.ok(caller.text().length > answer.length);
  });
});

suite("a head's size", deadline, () => {
  test("is limited in fields", async () => {
    await using g = await open({ maxHeaders: 20 });
    using within = await call(g.port, get("/function/f", `${"A: b\r\n".repeat(17)}Connection: close\r\n`));
    await ended(within, 200);
    using beyond = await call(g.port, get("/function/f", "A: b\r\n".repeat(30)));
    await ended(beyond, 431);
    assert.match(beyond.text(), / 20 fields \(setting gateway\.max_headers\)/);
  });

  test("is limited in bytes", async () => {
    await using g = await open({ maxHeaderBytes: 10_000 });
    using within = await call(g.port, get("/function/f", `A: ${"b".repeat(9000)}\r\nConnection: close\r\n`));
    await ended(within, 200);
    using beyond = await call(g.port, get("/function/f", `A: ${"b".repeat(11_000)}\r\n`));
    await ended(beyond, 431);
    assert.match(beyond.text(), /10000 bytes \(setting gateway\.max_header_bytes\)/);
  });
});

suite("a refusal", deadline, () => {
  const wrong = "GET /function/f HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
  for (const [says, bytes] of [
    ["by us", wrong],
    ["by the parser", "GARBAGE\r\n\r\n"],
  ] as const)
    test(`${says} waits for the answers before it, and nothing behind it is read`, async () => {
      await using g = await open({}, () => {});
      using caller = await call(g.port, get("/function/one") + get("/function/two") + bytes + get("/function/three"));
      await until("the good ones are seen", () => g.seen.length === 2);
      g.seen[1]!.res.end("second");
      g.seen[0]!.res.end("first");
      await ended(caller, 200, 200, 400);
      assert.match(caller.text(), /first.*second.*malformed/s);
      assert.equal(g.seen.length, 2);
    });

  test("of what follows Connection: close says nothing, and the last answer goes out whole", async () => {
    await using g = await open({}, () => {});
    using caller = await call(g.port, get("/function/one", "Connection: close\r\n") + get("/function/two"));
    await until("the first is seen", () => g.seen.length === 1);
    g.seen[0]!.res.end("last");
    await ended(caller, 200);
    assert.ok(caller.text().endsWith("last"));
    assert.equal(g.seen.length, 1);
  });

  test("reaches a caller that goes on sending its body", async () => {
    await using g = await open({});
    const socket = connect(g.port, "127.0.0.1");
    let text = "";
    socket.setEncoding("latin1").on("data", (part) => {
      text += part;
    });
    socket.write(`POST /function/f HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: ${8 * 1024 * 1024}\r\n\r\n`);
    socket.end(Buffer.alloc(8 * 1024 * 1024));
    await once(socket, "close");
    assert.match(text, /^HTTP\/1\.1 400 .*more than one Host/s);
  });

  test("in the middle of an answer cuts it: there is no second one in it", async () => {
    await using g = await open({});
    using caller = await call(g.port, post("Transfer-Encoding: chunked", "1\r\na\r\n"));
    await until("it is seen", () => g.seen.length === 1);
    g.seen[0]!.res.write("begun");
    await until("the answer begins", () => caller.text().includes("begun"));
    caller.socket.write("nonsense\r\n");
    await ended(caller, 200);
    assert.ok(!caller.text().includes("0\r\n\r\n"), "the answer does not look whole");
  });

  test("does not wait for ever for a caller that never closes", async () => {
    await using g = await open({});
    const socket = connect({ port: g.port, host: "127.0.0.1", allowHalfOpen: true });
    socket.on("error", () => {});
    socket.resume();
    socket.write(wrong);
    await once(socket, "end");
    await g.gateway.drain(60_000); // resolves when the last connection is gone
    socket.destroy();
  });
});
