import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { parseRequest } from "../../../src/http1/head.ts";
import { canonicalName, originForm, requestEnvironment, splitTarget } from "../../../src/watchdog/environment.ts";

const env = (...lines: string[]): Record<string, string> => requestEnvironment({}, parseRequest(lines.join("\r\n")));

suite("the environment of a call", () => {
  for (const [name, canonical] of [
    ["x-call-id", "X-Call-Id"],
    ["ETAG-x", "Etag-X"],
    ["x_FOO-bAr", "X_foo-Bar"],
    ["DNT", "Dnt"],
  ] as const)
    test(`${name} is ${canonical}`, () => assert.equal(canonicalName(name), canonical));

  test("first values only, Host apart, the URL decoded in the path and raw in the query", () => {
    assert.deepEqual(env("PUT /a%2Fb%zz?q=%20 HTTP/1.1", "host: h:1", "X-A: 1", "x-a: 2", "X-E:"), {
      Http_X_A: "1",
      Http_X_E: "",
      Http_Method: "PUT",
      Http_ContentLength: "0",
      Http_Content_Length: "0",
      Http_Query: "q=%20",
      Http_Path: "/a/b%zz",
      Http_Host: "h:1",
    });
  });

  test("a chunked body has no length, whatever a header says", () => {
    const chunked = env("POST / HTTP/1.1", "Host: h", "Content-Length: 3", "Transfer-Encoding: chunked");
    assert.equal(chunked.Http_Content_Length, "-1");
    assert.equal(chunked.Http_ContentLength, "-1");
    assert.equal(chunked.Http_Transfer_Encoding, "chunked");
  });

  test("a header may not hide what the request line says, but may add where it is silent", () => {
    const e = env("GET /x HTTP/1.1", "Host: h", "Method: M", "Path: P", "Query: Q", "Proxy: p");
    assert.deepEqual([e.Http_Method, e.Http_Path, e.Http_Query, e.Http_Proxy], ["GET", "/x", "Q", "p"]);
  });

  test("what the watchdog has is inherited, and the request wins", () => {
    const head = parseRequest("GET / HTTP/1.1\r\nHost: h");
    const e = requestEnvironment({ PATH: "/bin", Http_Method: "old" }, head);
    assert.deepEqual([e.PATH, e.Http_Method], ["/bin", "GET"]);
  });

  test("absolute targets lose their authority", () => {
    assert.equal(originForm("http://other.example/x?y"), "/x?y");
    assert.equal(originForm("http://other.example"), "/");
    assert.equal(originForm("*"), "*");
    assert.deepEqual(splitTarget("/a?b?c"), { path: "/a", query: "b?c" });
  });
});
