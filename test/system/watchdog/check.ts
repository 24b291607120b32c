import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Expectation } from "./case.ts";
import type { Seen } from "./client.ts";

/** Headers that may differ: how an answer is framed and whether its connection lives on are the server's business. */
const ofTheHop = new Set(["Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length"]);

/** Compares an answer with what a case says about it. */
export function checkAnswer(seen: Seen, expect: Expectation): void {
  assert.equal(seen.error, expect.error ?? "", "how the answer ended");
  if (expect.status !== undefined)
    assert.equal(seen.status, expect.status, `status; body: ${seen.body.subarray(0, 200)}`);
  checkBody(seen.body, expect);
  checkHeaders(seen, expect.headers ?? {});
  if (expect.closed) assert.ok(seen.closed, "the connection is closed");
  if (expect.interim) assert.deepEqual(seen.interim, expect.interim);
  checkTimes(seen, expect);
}

function checkBody(body: Buffer, expect: Expectation): void {
  const text = body.toString("utf8");
  if (expect.body !== undefined) assert.equal(text, expect.body);
  if (expect.bodyRegex !== undefined) assert.match(text, new RegExp(expect.bodyRegex));
  for (const part of expect.bodyContains ?? []) assert.ok(text.includes(part), `${part} in\n${text}`);
  if (expect.bodyLength !== undefined) assert.equal(body.length, expect.bodyLength, "bytes of the body");
  if (expect.bodySha256 !== undefined)
    assert.equal(createHash("sha256").update(body).digest("hex"), expect.bodySha256, "digest of the body");
}

function checkHeaders(seen: Seen, headers: Record<string, string | string[]>): void {
  for (const [name, wanted] of Object.entries(headers)) {
    if (ofTheHop.has(name)) continue;
    const values = seen.headers.get(name);
    assert.ok(values, `header ${name} is there`);
    if (Array.isArray(wanted)) assert.deepEqual(values, wanted, name);
    else if (wanted.startsWith("~")) assert.match(values[0]!, new RegExp(wanted.slice(1)), name);
    else assert.deepEqual(values, [wanted], name);
  }
}

function checkTimes(seen: Seen, expect: Expectation): void {
  if (expect.minMs !== undefined) assert.ok(seen.ms >= expect.minMs, `took ${seen.ms} ms, at least ${expect.minMs}`);
  if (expect.maxMs !== undefined) assert.ok(seen.ms <= expect.maxMs, `took ${seen.ms} ms, at most ${expect.maxMs}`);
  if (expect.minTtfbMs !== undefined) assert.ok(seen.ttfbMs >= expect.minTtfbMs, `first byte at ${seen.ttfbMs} ms`);
  if (expect.maxTtfbMs !== undefined)
    assert.ok(seen.ttfbMs <= expect.maxTtfbMs, `first byte at ${seen.ttfbMs} ms, at most ${expect.maxTtfbMs}`);
}

/** Compares what a process wrote. */
export function checkOutput(out: string, err: string, expect: Expectation): void {
  const has = (patterns: string[] = [], text: string, where: string): void => {
    for (const pattern of patterns) assert.match(text, new RegExp(pattern, "m"), `${where}:\n${text.slice(0, 4000)}`);
  };
  has(expect.stdoutRegex, out, "standard output");
  has(expect.stderrRegex, err, "standard error");
  has(expect.logRegex, out + err, "outputs");
  for (const pattern of expect.logNotRegex ?? []) assert.doesNotMatch(out + err, new RegExp(pattern, "m"));
}
