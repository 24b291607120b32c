import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { BodyError, decoderFor } from "../../../src/http1/body.ts";
import { CHUNKED, HeadError, parseRequest, parseResponse, UNTIL_CLOSE } from "../../../src/http1/head.ts";
import { isHopByHop } from "../../../src/watchdog/http1/hop.ts";
import { sniffContentType } from "../../../src/watchdog/http1/sniff.ts";

const get = (...lines: string[]): string => ["GET / HTTP/1.1", "Host: h", ...lines].join("\r\n");

suite("heads of requests", () => {
  test("names, values and repetitions stay as they came", () => {
    const r = parseRequest(get("X-A:  1 \t", "x-a: two words", "X-E:"));
    assert.deepEqual(r.fields, ["Host", "h", "X-A", "1", "x-a", "two words", "X-E", ""]);
  });

  for (const [what, head, status] of [
    ["blank before the colon", get("X-A : 1"), 400],
    ["folded line", get("X-A: 1", " 2"), 400],
    ["no colon", get("X-A"), 400],
    ["carriage return in a value", get("X-A: 1\r2"), 400],
    ["two hosts", get("Host: i"), 400],
    ["no host", "GET / HTTP/1.1", 400],
    ["lengths that differ", get("Content-Length: 1, 2"), 400],
    ["a signed length", get("Content-Length: +1"), 400],
    ["chunked not last", get("Transfer-Encoding: chunked, gzip"), 501],
    ["chunks in HTTP/1.0", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked", 400],
    ["blank in the target", "GET /a b HTTP/1.1\r\nHost: h", 400],
    ["HTTP/3.0", "GET / HTTP/3.0\r\nHost: h", 505],
  ] as const)
    test(`${status}: ${what}`, () =>
      assert.throws(
        () => parseRequest(head),
        (e) => e instanceof HeadError && e.status === status,
      ));

  test("how the body is framed and whether the connection stays", () => {
    const pick = (head: string): unknown[] => {
      const r = parseRequest(head);
      return [r.bodyLength, r.close];
    };
    assert.deepEqual(pick(get()), [0, false]);
    assert.deepEqual(pick(get("Content-Length: 5, 5")), [5, false]);
    assert.deepEqual(pick(get("Transfer-Encoding: Chunked")), [CHUNKED, false]);
    assert.deepEqual(pick(get("Transfer-Encoding: chunked", "Content-Length: 5")), [CHUNKED, true]);
    assert.deepEqual(pick(get("Connection: x, Close")), [0, true]);
    assert.deepEqual(pick("GET / HTTP/1.0"), [0, true]);
  });

  test("an upgrade counts only when Connection says so", () => {
    assert.equal(parseRequest(get("Upgrade: websocket")).upgrade, "");
    assert.equal(parseRequest(get("Connection: keep-alive, Upgrade", "Upgrade: websocket")).upgrade, "websocket");
  });
});

suite("heads of responses", () => {
  for (const [what, head, method, length, close] of [
    ["length", "HTTP/1.1 200 OK\r\nContent-Length: 3", "GET", 3, false],
    ["chunks", "HTTP/1.1 200\r\nTransfer-Encoding: gzip, chunked", "GET", CHUNKED, false],
    ["nothing said", "HTTP/1.1 200 OK", "GET", UNTIL_CLOSE, true],
    ["HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3", "HEAD", 0, false],
    ["304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3", "GET", 0, false],
    ["HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 3", "GET", 3, true],
    ["HTTP/1.0 kept alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3", "GET", 3, false],
  ] as const)
    test(what, () => {
      const r = parseResponse(head, method);
      assert.deepEqual([r.bodyLength, r.close], [length, close]);
    });

  test("garbage is an error", () => assert.throws(() => parseResponse("ICY 200 OK", "GET"), HeadError));
});

/** Everything a decoder makes of `text` when it comes in pieces of `size` bytes. */
function decode(length: number, text: string, size: number): { body: string; rest: string; done: boolean } {
  const decoder = decoderFor(length);
  let body = "";
  let pending: Buffer = Buffer.alloc(0);
  for (let at = 0; at < text.length; at += size) {
    pending = Buffer.concat([pending, Buffer.from(text.slice(at, at + size))]);
    while (!decoder.done) {
      const piece = decoder.read(pending);
      pending = pending.subarray(decoder.used);
      if (!piece) break;
      body += piece;
    }
  }
  return { body, rest: pending.toString(), done: decoder.done };
}

suite("bodies", () => {
  const chunked = "5;ext=1\r\nhello\r\n6 \r\n world\r\n0\r\nTrailer: t\r\n\r\nNEXT";
  for (const size of [1, 2, 3, 7, 1000])
    test(`in pieces of ${size} bytes`, () => {
      assert.deepEqual(decode(CHUNKED, chunked, size), { body: "hello world", rest: "NEXT", done: true });
      assert.deepEqual(decode(5, "helloNEXT", size), { body: "hello", rest: "NEXT", done: true });
      assert.deepEqual(decode(UNTIL_CLOSE, "hello", size), { body: "hello", rest: "", done: false });
    });

  for (const bad of ["zz\r\n", "-1\r\n", "5\r\nhelloX\r\n", "1".repeat(5000)])
    test(`refused: ${bad.slice(0, 12).trim()}`, () => assert.throws(() => decode(CHUNKED, bad, 1000), BodyError));
});

suite("hop-by-hop fields", () => {
  test("the standard ones, and those that Connection names", () => {
    for (const name of ["Connection", "TE", "keep-alive", "Transfer-Encoding", "Upgrade", "Proxy-Connection"])
      assert.ok(isHopByHop(name, []), name);
    for (const name of ["Host", "X-Foo", "Content-Length"]) assert.ok(!isHopByHop(name, []), name);
    assert.ok(isHopByHop("X-Foo", ["x-foo"]));
  });
});

suite("types of bodies that nobody named", () => {
  for (const [body, type] of [
    ["hello", "text/plain; charset=utf-8"],
    ['{"a":1}', "text/plain; charset=utf-8"],
    ["  <!DOCTYPE html><p>", "text/html; charset=utf-8"],
    ["<bogus>", "text/plain; charset=utf-8"],
    ["<b>x", "text/html; charset=utf-8"],
    ["<?xml v", "text/xml; charset=utf-8"],
    ["\x01\x02\x03", "application/octet-stream"],
    ["\x89PNG\r\n\x1a\n", "image/png"],
    ["\x1f\x8b\x08", "application/x-gzip"],
    ["", "text/plain; charset=utf-8"],
  ] as const)
    test(JSON.stringify(body), () => assert.equal(sniffContentType(Buffer.from(body, "latin1")), type));
});
