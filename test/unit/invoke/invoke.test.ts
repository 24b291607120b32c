/** The way of a call: a real client, the real front, and functions that are real HTTP servers on loopback. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { type ClientRequest, type IncomingMessage, type RequestOptions, request, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { suite, test } from "node:test";
import type { Program } from "../../fakes/backend.ts";
import { gate, namespace, openPlatform, type Platform, type PlatformOptions, until } from "../../fakes/platform.ts";

type Answer = NonNullable<Program["answer"]>;

/** A platform with the function `f`, which does `answer`. */
async function openWith(answer: Answer, body: object = {}, options: PlatformOptions = {}): Promise<Platform> {
  const p = await openPlatform(options);
  p.backend.push("f:1", { answer });
  await p.create({ service: "f", image: "f:1", ...body });
  return p;
}

/** A request to the function under way; ended by the test. */
function send(p: Platform, path: string, options: RequestOptions = {}): ClientRequest {
  const { hostname, port } = new URL(p.url);
  const req = request({ hostname, port, path, agent: false, ...options });
  req.on("error", () => {}); // tests that care ask for the answer
  return req;
}

async function answerOf(req: ClientRequest): Promise<IncomingMessage> {
  const [res] = await once(req, "response");
  return res;
}

async function textOf(res: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of res) text += chunk;
  return text;
}

/** A whole call. */
async function call(p: Platform, path: string, options: RequestOptions = {}, body?: string | Buffer) {
  const req = send(p, path, options);
  req.end(body);
  const res = await answerOf(req);
  return { status: res.statusCode!, headers: res.headers, raw: res.rawHeaders, text: await textOf(res) };
}

/** All values of a header in a list of names and values. */
function valuesOf(raw: readonly string[], name: string): string[] {
  return raw.filter((_, i) => i % 2 === 1 && raw[i - 1]!.toLowerCase() === name);
}

const inFlight = (p: Platform) => p.table.get(`f.${namespace}`)!.routable.map((r) => r.inFlight);
const idle = (p: Platform) => until("no request is in flight", () => inFlight(p).every((n) => n === 0));
const sees: Answer = (req, res) =>
  void res.end(JSON.stringify({ method: req.method, url: req.url, raw: req.rawHeaders }));

suite("a call", () => {
  const targets = [
    ["/function/f", "/"],
    ["/function/f/", "/"],
    ["/function/f?a=b", "/?a=b"],
    ["/function/f/a/b/?q=1&q=%20+", "/a/b/?q=1&q=%20+"],
    ["/function/f/a%2Fb%25c%3Fd//e/../g", "/a%2Fb%25c%3Fd//e/../g"],
    [`/function/f.${namespace}/x`, "/x"],
  ] as const;
  for (const [path, url] of targets)
    test(`of ${path} reaches the function as ${url}`, async () => {
      await using p = await openWith(sees);
      assert.equal(JSON.parse((await call(p, path)).text).url, url);
    });

  for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
    test(`keeps its method ${method}`, async () => {
      await using p = await openWith(sees);
      assert.equal(JSON.parse((await call(p, "/function/f", { method })).text).method, method);
    });

  test("of a function that does not exist is answered 404, with the platform's headers", async () => {
    await using p = await openPlatform();
    const { status, headers, text } = await call(p, "/function/ghost", { headers: { "x-call-id": "mine" } });
    assert.equal(status, 404);
    assert.match(text, /function ghost\.fn does not exist.*\n$/);
    assert.equal(headers["content-type"], "text/plain; charset=utf-8");
    assert.equal(headers["x-content-type-options"], "nosniff");
    assert.equal(headers["x-call-id"], "mine");
    assert.match(headers["x-start-time"] as string, /^\d{19}$/);
    assert.ok(headers["x-openfaas-internal"]);
  });

  for (const path of ["/function/", "/function/.fn", "/function/f.elsewhere", "/function/x.f.fn", "/function/f%2Fx"])
    test(`of ${path} is answered 404`, async () => {
      await using p = await openWith(sees);
      assert.equal((await call(p, path)).status, 404);
    });

  test("gets an id and a time, which function and caller both see", async () => {
    await using p = await openWith(sees);
    const before = Date.now();
    const { headers, text } = await call(p, "/function/f");
    const raw = JSON.parse(text).raw;
    assert.deepEqual(valuesOf(raw, "x-call-id"), [headers["x-call-id"]]);
    assert.deepEqual(valuesOf(raw, "x-start-time"), [headers["x-start-time"]]);
    const startMs = Number(BigInt(headers["x-start-time"] as string) / 1_000_000n);
    assert.ok(startMs >= before && startMs <= Date.now());
    assert.notEqual((await call(p, "/function/f")).headers["x-call-id"], headers["x-call-id"]);
  });

  test("keeps the id that the caller gave it", async () => {
    await using p = await openWith(sees);
    const { headers, text } = await call(p, "/function/f", { headers: { "X-Call-Id": "mine" } });
    assert.deepEqual([headers["x-call-id"], valuesOf(JSON.parse(text).raw, "x-call-id")], ["mine", ["mine"]]);
  });

  test("keeps repeated headers apart, in both directions and in order", async () => {
    await using p = await openWith((req, res) => {
      res.writeHead(200, ["Set-Cookie", "a=1", "X-Twice", "one", "Set-Cookie", "b=2", "X-Twice", "two"]);
      res.end(JSON.stringify(req.rawHeaders));
    });
    const { raw, text } = await call(p, "/function/f", {
      headers: { "X-Many": ["3", "1", "2"], Cookie: "c=d", Authorization: "Bearer its-own" },
    });
    assert.deepEqual(valuesOf(raw, "set-cookie"), ["a=1", "b=2"]);
    assert.deepEqual(valuesOf(raw, "x-twice"), ["one", "two"]);
    const seen = JSON.parse(text);
    assert.deepEqual(valuesOf(seen, "x-many"), ["3", "1", "2"]);
    assert.deepEqual(valuesOf(seen, "authorization"), ["Bearer its-own"]);
  });

  test("does not carry a connection's own headers on", async () => {
    await using p = await openWith((req, res) => {
      res.writeHead(200, {
        "Keep-Alive": "timeout=77",
        Connection: "X-Private, close",
        "X-Private": "1",
        "X-Public": "2",
      });
      res.end(JSON.stringify(req.rawHeaders));
    });
    const { headers, text } = await call(p, "/function/f", {
      headers: { Connection: "close, X-Mine", "X-Mine": "1", TE: "trailers", "Proxy-Authorization": "Basic eA==" },
    });
    const names = JSON.parse(text).map((s: string) => s.toLowerCase());
    for (const gone of ["x-mine", "te", "proxy-authorization"]) assert.ok(!names.includes(gone), gone);
    assert.equal(headers["x-private"], undefined);
    assert.equal(headers["x-public"], "2");
    assert.notEqual(headers["keep-alive"], "timeout=77");
  });

  for (const status of [200, 201, 302, 400, 404, 429, 500, 503])
    test(`that the function answers with ${status} is answered so, and not marked as an error of the platform`, async () => {
      await using p = await openWith((_, res) => void res.writeHead(status, { Location: "/else" }).end("its own"));
      const answer = await call(p, "/function/f");
      assert.deepEqual([answer.status, answer.text, answer.headers.location], [status, "its own", "/else"]);
      assert.equal(answer.headers["x-openfaas-internal"], undefined);
    });

  test("with HEAD gets the head and no body", async () => {
    await using p = await openWith((_, res) => void res.writeHead(200, { "Content-Length": "12345" }).end());
    const { status, headers, text } = await call(p, "/function/f", { method: "HEAD" });
    assert.deepEqual([status, headers["content-length"], text], [200, "12345", ""]);
  });

  for (const status of [204, 304])
    test(`answered ${status} has neither body nor content type`, async () => {
      await using p = await openWith((_, res) => void res.writeHead(status).end());
      const answer = await call(p, "/function/f");
      assert.deepEqual([answer.status, answer.text, answer.headers["content-type"]], [status, "", undefined]);
    });

  test("answered without a content type gets the request's, else text/plain", async () => {
    await using p = await openWith((_, res) => void res.end("x"));
    const post = { method: "POST", headers: { "Content-Type": "application/cbor" } };
    assert.equal((await call(p, "/function/f", post, "y")).headers["content-type"], "application/cbor");
    assert.equal((await call(p, "/function/f")).headers["content-type"], "text/plain");
  });

  test("does not pass interim answers on", async () => {
    await using p = await openWith((_, res) => {
      res.writeEarlyHints({ link: "</style.css>; rel=preload" });
      res.end("final");
    });
    const req = send(p, "/function/f");
    let interim = 0;
    req.on("information", () => interim++);
    req.end();
    const res = await answerOf(req);
    assert.deepEqual([res.statusCode, await textOf(res), interim], [200, "final", 0]);
  });

  test("may be answered with many headers", async () => {
    const value = "x".repeat(60_000);
    await using p = await openWith((_, res) => void res.writeHead(200, { "X-Long": value }).end("ok"));
    const { status, headers } = await call(p, "/function/f", { maxHeaderSize: 1024 * 1024 });
    assert.deepEqual([status, headers["x-long"] === value], [200, true]);
  });

  test("goes to the replica with the fewest requests in flight", async () => {
    const held: ServerResponse[] = [];
    await using p = await openWith((_, res) => void held.push(res), { labels: { "com.openfaas.scale.min": "3" } });
    const calls = Array.from({ length: 6 }, () => call(p, "/function/f"));
    await until("all of them are there", () => held.length === 6);
    assert.deepEqual(inFlight(p), [2, 2, 2]);
    for (const res of held) res.end();
    await Promise.all(calls);
    await idle(p);
  });

  test("is counted when it has ended, whatever its end was", async () => {
    await using p = await openWith((req, res) => (req.url === "/cut" ? req.socket.destroy() : void res.end()));
    await call(p, "/function/f");
    await call(p, "/function/f/cut");
    await until("both are counted", () => p.status("f")!.invocationCount === 2);
  });
});

suite("a body", () => {
  const bytes = randomBytes(8 * 1024 * 1024);
  const digest = createHash("sha256").update(bytes).digest("hex");
  const digests: Answer = async (req, res) => {
    const hash = createHash("sha256");
    for await (const chunk of req) hash.update(chunk);
    res.end(JSON.stringify({ digest: hash.digest("hex"), raw: req.rawHeaders }));
  };

  test("of known length arrives whole, and with its length", async () => {
    await using p = await openWith(digests);
    const headers = { "Content-Length": bytes.length };
    const seen = JSON.parse((await call(p, "/function/f", { method: "POST", headers }, bytes)).text);
    assert.equal(seen.digest, digest);
    assert.deepEqual(valuesOf(seen.raw, "content-length"), [String(bytes.length)]);
    assert.deepEqual(valuesOf(seen.raw, "transfer-encoding"), []);
  });

  test("in chunks arrives whole, in chunks", async () => {
    await using p = await openWith(digests);
    const headers = { "Transfer-Encoding": "chunked" };
    const seen = JSON.parse((await call(p, "/function/f", { method: "POST", headers }, bytes)).text);
    assert.equal(seen.digest, digest);
    assert.deepEqual(valuesOf(seen.raw, "transfer-encoding"), ["chunked"]);
  });

  test("may come with GET", async () => {
    await using p = await openWith(digests);
    const headers = { "Content-Length": bytes.length };
    assert.equal(JSON.parse((await call(p, "/function/f", { headers }, bytes)).text).digest, digest);
  });

  test("that is empty stays empty: a POST of nothing has length 0", async () => {
    await using p = await openWith(digests);
    const headers = { "Content-Length": 0 };
    const seen = JSON.parse((await call(p, "/function/f", { method: "POST", headers })).text);
    assert.deepEqual(valuesOf(seen.raw, "content-length"), ["0"]);
    assert.equal(seen.digest, createHash("sha256").digest("hex"));
  });

  for (const framing of ["length", "chunks"])
    test(`of an answer by ${framing} arrives whole`, async () => {
      await using p = await openWith((_, res) => {
        if (framing === "length") res.setHeader("Content-Length", bytes.length);
        else res.flushHeaders();
        res.end(bytes);
      });
      const req = send(p, "/function/f");
      req.end();
      const res = await answerOf(req);
      const hash = createHash("sha256");
      for await (const chunk of res) hash.update(chunk);
      assert.equal(hash.digest("hex"), digest);
      assert.equal(res.headers["content-length"], framing === "length" ? String(bytes.length) : undefined);
    });

  test("streams both ways at once: each piece comes back before the next one is sent", async () => {
    await using p = await openWith((req, res) => void req.pipe(res));
    const req = send(p, "/function/f", { method: "POST", headers: { "Transfer-Encoding": "chunked" } });
    req.write("one");
    const pieces = (await answerOf(req)).iterator();
    assert.equal(String((await pieces.next()).value), "one");
    for (const piece of ["two", "three"]) {
      req.write(piece);
      assert.equal(String((await pieces.next()).value), piece);
    }
    req.end();
    assert.ok((await pieces.next()).done);
  });

  test("of an event stream: its head arrives before the first event, each event before the next", async () => {
    const events = [gate(), gate()];
    await using p = await openWith(async (_, res) => {
      res.writeHead(200, { "Content-Type": "text/event-stream" });
      res.flushHeaders();
      for (const [i, event] of events.entries()) {
        await event.opened;
        res.write(`data: ${i}\n\n`);
      }
      res.end();
    });
    const req = send(p, "/function/f");
    req.end();
    const pieces = (await answerOf(req)).iterator();
    for (const [i, event] of events.entries()) {
      event.open();
      assert.equal(String((await pieces.next()).value), `data: ${i}\n\n`);
    }
    assert.ok((await pieces.next()).done);
  });

  test("waits for a caller who does not read: the function is held back, and nothing is lost", async () => {
    const piece = Buffer.alloc(1024 * 1024, "x");
    const pieces = 200;
    let written = 0;
    await using p = await openWith(async (_, res) => {
      for (; written < pieces; written++) if (!res.write(piece)) await once(res, "drain");
      res.end();
    });
    const req = send(p, "/function/f");
    req.end();
    const res = await answerOf(req);
    let [before, same] = [-1, 0];
    await until("the function stands still", () => {
      same = written === before ? same + 1 : 0;
      before = written;
      return same > 50;
    });
    assert.ok(written < pieces / 2, `${written} MiB went into buffers`);
    let length = 0;
    for await (const chunk of res) length += chunk.length;
    assert.equal(length, pieces * piece.length);
  });

  test("waits for a function that does not read: the caller is held back", async () => {
    const { opened, open } = gate();
    await using p = await openWith(async (req, res) => {
      await opened;
      let length = 0;
      for await (const chunk of req) length += chunk.length;
      res.end(String(length));
    });
    const piece = Buffer.alloc(1024 * 1024, "x");
    const pieces = 200;
    const req = send(p, "/function/f", { method: "POST", headers: { "Transfer-Encoding": "chunked" } });
    let written = 0;
    const writing = (async () => {
      for (; written < pieces; written++) if (!req.write(piece)) await once(req, "drain");
      req.end();
    })();
    let [before, same] = [-1, 0];
    await until("the caller stands still", () => {
      same = written === before ? same + 1 : 0;
      before = written;
      return same > 50;
    });
    assert.ok(written < pieces / 2, `${written} MiB went into buffers`);
    open();
    await writing;
    assert.equal(await textOf(await answerOf(req)), String(pieces * piece.length));
  });

  test("that waits for a word is asked for", async () => {
    await using p = await openWith((req, res) => void req.pipe(res));
    const headers = { Expect: "100-continue", "Content-Length": 4 };
    const req = send(p, "/function/f", { method: "POST", headers });
    req.flushHeaders();
    await once(req, "continue");
    req.end("body");
    assert.equal(await textOf(await answerOf(req)), "body");
  });
});

suite("a caller who leaves", () => {
  test("while the function works ends the function's request, and is not in flight any more", async () => {
    const begun = gate();
    const cancelled = gate();
    await using p = await openWith((_, res) => {
      res.once("close", cancelled.open);
      begun.open();
    });
    const req = send(p, "/function/f");
    req.end();
    await begun.opened;
    assert.deepEqual(inFlight(p), [1]);
    req.destroy();
    await cancelled.opened;
    await idle(p);
  });

  test("in the middle of the answer ends the function's request", async () => {
    const cancelled = gate();
    await using p = await openWith((_, res) => {
      res.once("close", cancelled.open);
      res.write("first part");
    });
    const req = send(p, "/function/f");
    req.end();
    const res = await answerOf(req);
    await once(res, "data");
    res.destroy();
    await cancelled.opened;
    await idle(p);
  });

  test("in the middle of the upload ends the function's request with an error, not as if it were complete", async () => {
    const ended = Promise.withResolvers<string>();
    await using p = await openWith((req) => {
      req.once("end", () => ended.resolve("complete"));
      req.once("error", () => ended.resolve("cut"));
      req.resume();
    });
    const req = send(p, "/function/f", { method: "POST", headers: { "Content-Length": 1000 } });
    req.write("not all of it");
    await until("it is in flight", () => inFlight(p)[0] === 1);
    req.destroy();
    assert.equal(await ended.promise, "cut");
    await idle(p);
  });

  test("while the function wakes up is not sent to it", async () => {
    let calls = 0;
    await using p = await openWith((_, res) => {
      calls++;
      res.end();
    });
    await p.functions().scale({ name: "f", namespace }, 0);
    await until("it sleeps", async () => (await p.backend.list()).length === 0);
    const { opened, open } = gate();
    p.backend.gate = opened;
    const req = send(p, "/function/f");
    req.end();
    await until("it is being woken", () => p.backend.count("start") === 2);
    req.destroy();
    await new Promise((resolve) => req.once("close", resolve));
    open();
    await until("it is awake", () => p.routable("f").length === 1);
    assert.equal((await call(p, "/function/f")).status, 200);
    assert.equal(calls, 1);
    await idle(p);
  });
});

suite("a function that fails", () => {
  test("by refusing the connection, as its process is gone, is started again and answers", async () => {
    await using p = await openWith(sees);
    await p.backend.lose({ name: "f", namespace, generation: 1, number: 0 });
    const answers = await Promise.all(
      ["GET", "POST", "PUT"].map((method) => call(p, "/function/f", { method }, method === "GET" ? undefined : "body")),
    );
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200],
    );
    assert.equal(p.backend.count("start"), 2);
    await idle(p);
  });

  test("by closing the connection without an answer is answered 502", async () => {
    await using p = await openWith((req) => void req.socket.destroy());
    const { status, headers, text } = await call(p, "/function/f");
    assert.equal(status, 502);
    assert.match(text, /closed the connection before its answer was complete/);
    assert.ok(headers["x-openfaas-internal"]);
    await idle(p);
  });

  test("by an answer that is no HTTP is answered 502", async () => {
    await using p = await openWith((req) => void req.socket.end("hello, this is not HTTP\r\n\r\n"));
    assert.equal((await call(p, "/function/f")).status, 502);
    await idle(p);
  });

  for (const framing of ["length", "chunks"])
    test(`in the middle of an answer by ${framing} cuts the caller, who is not left with a part that looks whole`, async () => {
      await using p = await openWith((req, res) => {
        if (framing === "length") res.setHeader("Content-Length", 1000);
        res.write("the first part", () => req.socket.destroy());
      });
      const req = send(p, "/function/f");
      req.end();
      const res = await answerOf(req);
      await assert.rejects(textOf(res), { code: "ECONNRESET" });
      await idle(p);
    });

  test("by answering before it has read the whole body has its answer delivered", async () => {
    await using p = await openWith((_, res) => void res.writeHead(413, { Connection: "close" }).end("too much"));
    const req = send(p, "/function/f", { method: "POST", headers: { "Transfer-Encoding": "chunked" } });
    req.write("a beginning");
    const res = await answerOf(req);
    assert.deepEqual([res.statusCode, await textOf(res)], [413, "too much"]);
    req.destroy();
    await idle(p);
  });
});

suite("a function that takes too long", () => {
  test("is answered 504, which names the limit and the setting, and its request is ended", async () => {
    const cancelled = gate();
    await using p = await openWith((_, res) => void res.once("close", cancelled.open), {}, { timeoutMs: 200 });
    const { status, headers, text } = await call(p, "/function/f");
    assert.equal(status, 504);
    assert.match(text, /function f\.fn did not answer within 0\.2 s \(setting gateway\.upstream_timeout\)/);
    assert.ok(headers["x-openfaas-internal"]);
    await cancelled.opened;
    await idle(p);
  });

  test("has the time that its annotation gives it", async () => {
    await using p = await openWith(() => {}, { annotations: { "napd.timeout": "150ms" } });
    const { status, text } = await call(p, "/function/f");
    assert.equal(status, 504);
    assert.match(text, /0\.15 s \(annotation napd\.timeout\)/);
  });

  test("in the middle of its answer is cut", async () => {
    await using p = await openWith((_, res) => void res.write("the first part"), {}, { timeoutMs: 200 });
    const req = send(p, "/function/f");
    req.end();
    const res = await answerOf(req);
    await assert.rejects(textOf(res), { code: "ECONNRESET" });
    await idle(p);
  });

  test("to wake up is answered 504 too, and the wake-up goes on for the next caller", async () => {
    await using p = await openWith((_, res) => void res.end("awake"), {}, { timeoutMs: 200 });
    await p.functions().scale({ name: "f", namespace }, 0);
    await until("it sleeps", async () => (await p.backend.list()).length === 0);
    const { opened, open } = gate();
    p.backend.gate = opened;
    assert.equal((await call(p, "/function/f")).status, 504);
    open();
    await until("it is awake", () => p.routable("f").length === 1);
    assert.equal((await call(p, "/function/f")).text, "awake");
    assert.equal(p.backend.count("start"), 2);
  });

  test("for one call serves the others", async () => {
    await using p = await openWith(
      (req, res) => void (req.url === "/slow" || res.end("quick")),
      {},
      { timeoutMs: 300 },
    );
    const slow = call(p, "/function/f/slow");
    for (let i = 0; i < 10; i++) assert.equal((await call(p, "/function/f")).text, "quick");
    assert.equal((await slow).status, 504);
  });
});

test("an old client, HTTP/1.0 without keep-alive, gets a whole answer and the end of the connection", async () => {
  await using p = await openWith((_, res) => {
    res.write("in ");
    res.end("pieces");
  });
  const socket = connect(Number(new URL(p.url).port), "127.0.0.1");
  socket.write("GET /function/f HTTP/1.0\r\n\r\n");
  let text = "";
  for await (const chunk of socket) text += chunk;
  assert.match(text, /^HTTP\/1\.[01] 200 /);
  assert.doesNotMatch(text, /transfer-encoding/i);
  assert.match(text, /\r\n\r\nin pieces$/);
});
