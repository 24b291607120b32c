import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { parseResponse } from "../../../src/http1/head.ts";
import { requestHead, responseHeaders } from "../../../src/invoke/headers.ts";

const call = { callId: "id-1", startTime: "1700000000000000000" };
const host = "napd.example:8080";
const peer = "1.2.3.4:51234";
const added = ["X-Call-Id", "id-1", "X-Start-Time", "1700000000000000000"];
const forwarded = ["X-Forwarded-Host", host, "X-Forwarded-For", peer];

/** As node:http gives it. */
function request(method: string, raw: string[]) {
  const headers: Record<string, string> = {};
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    headers[name] = headers[name] === undefined ? raw[i + 1]! : `${headers[name]}, ${raw[i + 1]}`;
  }
  return { method, rawHeaders: raw, headers };
}

/** What the function sees, without its own host. */
function seen(raw: string[], callersHost = host): string[] {
  const withHost = raw.includes("Host") || callersHost === "" ? raw : ["Host", callersHost, ...raw];
  const head = requestHead(request("GET", withHost), "/", "10.1.2.3:8080", call, peer, null);
  const [, , ...lines] = head.trimEnd().split("\r\n");
  return lines.flatMap((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
}

suite("a request's headers, as the function gets them,", () => {
  const rows: { says: string; raw: string[]; out: string[] }[] = [
    { says: "have what the platform adds", raw: [], out: [...added, ...forwarded] },
    {
      says: "keep order, spelling and repetitions",
      raw: ["b", "1", "A", "2", "B", "3", "a", "4"],
      out: ["b", "1", "A", "2", "B", "3", "a", "4", ...added, ...forwarded],
    },
    { says: "have no Host of ours", raw: ["Host", host], out: [...added, ...forwarded] },
    { says: "do not ask to go on, which we answered", raw: ["Expect", "100-continue"], out: [...added, ...forwarded] },
    {
      says: "keep the caller's own authorization, cookies and callback",
      raw: ["Authorization", "Basic eA==", "Cookie", "a=b", "X-Callback-Url", "http://x/"],
      out: ["Authorization", "Basic eA==", "Cookie", "a=b", "X-Callback-Url", "http://x/", ...added, ...forwarded],
    },
    {
      says: "keep length and encoding of the body, and what the caller accepts",
      raw: ["Content-Length", "5", "Content-Encoding", "br", "Accept-Encoding", "gzip"],
      out: ["Content-Length", "5", "Content-Encoding", "br", "Accept-Encoding", "gzip", ...added, ...forwarded],
    },
    {
      says: "keep the caller's call id",
      raw: ["x-call-id", "mine"],
      out: ["x-call-id", "mine", "X-Start-Time", "1700000000000000000", ...forwarded],
    },
    {
      says: "get our start time besides the one that is there",
      raw: ["X-Start-Time", "5"],
      out: ["X-Start-Time", "5", ...added, ...forwarded],
    },
    {
      says: "keep what an earlier proxy said of the caller",
      raw: ["X-Forwarded-For", "9.9.9.9", "x-forwarded-host", "a.example"],
      out: ["X-Forwarded-For", "9.9.9.9", "x-forwarded-host", "a.example", ...added],
    },
    {
      says: "lack every hop-by-hop header",
      raw: [
        ...["Connection", "keep-alive", "Proxy-Connection", "keep-alive", "Keep-Alive", "timeout=5"],
        ...["Proxy-Authenticate", "Basic", "Proxy-Authorization", "Basic eA==", "TE", "trailers"],
        ...["Trailer", "X-Sum", "UPGRADE", "h2c", "Kept", "1"],
      ],
      out: ["Kept", "1", ...added, ...forwarded],
    },
    {
      says: "say of a body in chunks that it comes in chunks, and nothing of its length",
      raw: ["Content-Length", "5", "transfer-encoding", "Chunked"],
      out: ["Transfer-Encoding", "chunked", ...added, ...forwarded],
    },
    {
      says: "keep the length that frames the body even if Connection names it",
      raw: ["Connection", "content-length, x-one", "Content-Length", "5", "X-One", "1"],
      out: ["Content-Length", "5", ...added, ...forwarded],
    },
    {
      says: "lack what Connection names, in any case, and over several lines",
      raw: ["x-one", "1", "Connection", "X-One, close", "X-Two", "2", "connection", "x-two", "X-Three", "3"],
      out: ["X-Three", "3", ...added, ...forwarded],
    },
    {
      says: "get a call id when Connection takes the caller's away",
      raw: ["Connection", "X-Call-Id", "X-Call-Id", "mine"],
      out: [...added, ...forwarded],
    },
  ];
  for (const { says, raw, out } of rows) test(says, () => assert.deepEqual(seen(raw), out));

  test("name no host when the caller named none", () => {
    assert.deepEqual(seen([], ""), [...added, "X-Forwarded-For", peer]);
  });

  test("follow the request line byte for byte, and the function's own host", () => {
    const head = requestHead(request("PROPFIND", []), "/a%2F?b=%zz", "10.1.2.3:8080", call, peer, null);
    assert.match(head, /^PROPFIND \/a%2F\?b=%zz HTTP\/1\.1\r\nHost: 10\.1\.2\.3:8080\r\n/);
    assert.ok(head.endsWith("\r\n\r\n"));
  });

  test("ask for another protocol with the caller's own host, which a page's origin is compared with", () => {
    const raw = ["Host", host, "Connection", "keep-alive, Upgrade", "Upgrade", "WebSocket", "Sec-WebSocket-Key", "k"];
    const head = requestHead(request("GET", raw), "/", "10.1.2.3:8080", call, peer, "WebSocket");
    assert.match(head, /^GET \/ HTTP\/1\.1\r\nHost: napd\.example:8080\r\nSec-WebSocket-Key: k\r\n/);
    assert.match(head, /\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n/);
  });
});

/** What the caller sees of an answer to GET. */
function answered(raw: string[], status: number, requestType?: string): string[] {
  let text = `HTTP/1.1 ${status} X`;
  for (let i = 0; i < raw.length; i += 2) text += `\r\n${raw[i]}: ${raw[i + 1]}`;
  return responseHeaders(parseResponse(text, "GET"), call, requestType);
}

suite("an answer's headers, as the caller gets them,", () => {
  const type = ["Content-Type", "text/plain"];
  const rows: { says: string; raw: string[]; status?: number; requestType?: string; out: string[] }[] = [
    { says: "have what the platform adds", raw: [], out: [...added, ...type] },
    {
      says: "keep order, spelling and repetitions",
      raw: ["Set-Cookie", "a=1", "content-type", "x/y", "Set-Cookie", "b=2"],
      out: ["Set-Cookie", "a=1", "content-type", "x/y", "Set-Cookie", "b=2", ...added],
    },
    {
      says: "keep the function's own values of what the platform would add",
      raw: ["x-call-id", "its", "X-START-TIME", "5", "Content-Type", "a/b"],
      out: ["x-call-id", "its", "X-START-TIME", "5", "Content-Type", "a/b"],
    },
    {
      says: "have the request's type when the function gave none",
      raw: [],
      requestType: "application/json",
      out: [...added, "Content-Type", "application/json"],
    },
    { says: "have no type with 204", raw: [], status: 204, requestType: "a/b", out: added },
    { says: "have no type with 304", raw: [], status: 304, out: added },
    {
      says: "keep length and encoding of the body",
      raw: ["Content-Length", "5", "Content-Encoding", "gzip", "Content-Type", "a/b"],
      out: ["Content-Length", "5", "Content-Encoding", "gzip", "Content-Type", "a/b", ...added],
    },
    {
      says: "lack every hop-by-hop header",
      raw: [
        "Connection",
        "close",
        "Keep-Alive",
        "timeout=5",
        "Transfer-Encoding",
        "chunked",
        "Trailer",
        "X",
        "Upgrade",
        "h2c",
      ],
      out: [...added, ...type],
    },
    {
      says: "lack what Connection names, before and behind it",
      raw: ["X-One", "1", "Connection", "x-one, X-Two", "X-Two", "2", "X-Three", "3"],
      out: ["X-Three", "3", ...added, ...type],
    },
    {
      says: "keep the mark of the function's own watchdog",
      raw: ["X-OpenFaaS-Internal", "of-watchdog"],
      out: ["X-OpenFaaS-Internal", "of-watchdog", ...added, ...type],
    },
  ];
  for (const { says, raw, status = 200, requestType, out } of rows)
    test(says, () => {
      assert.deepEqual(answered(raw, status, requestType), out);
    });

  test("keep bytes beyond ASCII as they are", () => {
    const [, value] = answered(["X", "\u00e4\u00ff"], 204);
    assert.equal(value, "\u00e4\u00ff");
  });
});
