import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { requestHeaders, responseHeaders } from "../../../src/invoke/headers.ts";

const call = { callId: "id-1", startTime: "1700000000000000000" };
const host = "napd.example:8080";
const peer = "1.2.3.4:51234";
const added = ["X-Call-Id", "id-1", "X-Start-Time", "1700000000000000000"];
const forwarded = ["X-Forwarded-Host", host, "X-Forwarded-For", peer];

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
        ...["Trailer", "X-Sum", "Transfer-Encoding", "chunked", "UPGRADE", "h2c", "Kept", "1"],
      ],
      out: ["Kept", "1", ...added, ...forwarded],
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
  for (const { says, raw, out } of rows) test(says, () => assert.deepEqual(requestHeaders(raw, call, host, peer), out));

  test("name no host when the caller named none", () => {
    assert.deepEqual(requestHeaders([], call, "", peer), [...added, "X-Forwarded-For", peer]);
  });
});

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
      assert.deepEqual(responseHeaders(raw, status, call, requestType), out);
      assert.deepEqual(
        responseHeaders(
          raw.map((text) => Buffer.from(text)),
          status,
          call,
          requestType,
        ),
        out,
      );
    });

  test("keep bytes beyond ASCII as they are", () => {
    const [, value] = responseHeaders([Buffer.from("X"), Buffer.from([0xe4, 0xff])], 204, call, undefined);
    assert.equal(value, "\u00e4\u00ff");
  });
});
