import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { matchesAny } from "../../../src/watchdog/auth.ts";
import { CallMetrics } from "../../../src/watchdog/metrics.ts";
import { filePath } from "../../../src/watchdog/modes/static.ts";

suite("watchdog: permission patterns", () => {
  const rows: [pattern: string, subject: string, matches: boolean][] = [
    ["ns1:fn1", "ns1:fn1", true],
    ["s1:f", "ns1:fn1", false],
    ["ns1:*", "ns1:fn1", true],
    ["*", "ns1:fn1", true],
    ["ns.:fn1", "ns1:fn1", false],
    ["*:fn1", "ns1:fn12", false],
    ["", "ns1:fn1", false],
  ];
  for (const [pattern, subject, matches] of rows)
    test(`"${pattern}" ${matches ? "allows" : "does not allow"} ${subject}`, () =>
      assert.equal(matchesAny([pattern], subject), matches));
});

suite("watchdog: paths of files", () => {
  const rows: [path: string, file: string | null][] = [
    ["/", "/"],
    ["/a%20b", "/a b"],
    ["/../../x", "/x"],
    ["/%2e%2e/x", "/x"],
    ["/a//b/./c/", "/a/b/c/"],
    ["/a/..", "/"],
    ["/a/b/..", "/a/"],
    ["/a%00b", null],
    ["/%zz", null],
  ];
  for (const [path, file] of rows) test(`${path} is ${file}`, () => assert.equal(filePath(path), file));
});

test("watchdog: metrics count by code and method, in buckets that contain the smaller ones", () => {
  const metrics = new CallMetrics();
  assert.match(metrics.print(), /^# HELP http_requests_in_flight .*\n.*\nhttp_requests_in_flight 0\n$/);
  metrics.record("POST", 200, 0.005);
  metrics.record("POST", 200, 0.3);
  metrics.record("FROB", 0, 20);
  const text = metrics.print();
  for (const line of [
    'http_requests_total{code="200",method="post"} 2',
    'http_requests_total{code="499",method="unknown"} 1',
    'http_request_duration_seconds_bucket{code="200",method="post",le="0.005"} 1',
    'http_request_duration_seconds_bucket{code="200",method="post",le="0.5"} 2',
    'http_request_duration_seconds_bucket{code="499",method="unknown",le="10"} 0',
    'http_request_duration_seconds_bucket{code="499",method="unknown",le="+Inf"} 1',
    'http_request_duration_seconds_sum{code="200",method="post"} 0.305',
  ])
    assert.ok(text.includes(`${line}\n`), line);
});
