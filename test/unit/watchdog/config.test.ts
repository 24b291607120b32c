import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { type Config, modeOf, readConfig } from "../../../src/watchdog/config.ts";

const http = { fprocess: "node index.js", mode: "http", upstream_url: "http://127.0.0.1:3000" };
const classic = { fprocess: "cat" };

suite("watchdog configuration", () => {
  test("defaults of classic mode", () => {
    const c = readConfig(classic, "/usr/bin/fwatchdog");
    assert.equal(c.mode, "classic");
    assert.deepEqual(
      [c.port, c.readTimeoutMs, c.writeTimeoutMs, c.execTimeoutMs, c.maxInflight, c.suppressLock, c.lockFile],
      [8080, 30_000, 30_000, 0, 0, false, "/tmp/.lock"],
    );
    assert.deepEqual(c.classic, {
      combineOutput: true,
      cgiHeaders: true,
      contentType: "",
      marshalRequest: false,
      writeDebug: false,
      debugHeaders: false,
    });
    assert.deepEqual(c.warnings, []);
  });

  test("defaults of http mode", () => {
    const c = readConfig(http, "fwatchdog");
    assert.equal(c.execTimeoutMs, 30_000);
    assert.deepEqual(c.http.upstream, {
      url: "http://127.0.0.1:3000",
      secure: false,
      host: "127.0.0.1",
      port: 3000,
      basePath: "",
    });
    assert.deepEqual([c.log.prefix, c.http.bufferRequestBody], [true, false]);
  });

  const rows: [string, Record<string, string>, (c: Config) => unknown, unknown][] = [
    ["a whole number is seconds", { ...classic, exec_timeout: "+3" }, (c) => c.execTimeoutMs, 3000],
    ["a Go duration", { ...classic, exec_timeout: "1m1.5s" }, (c) => c.execTimeoutMs, 61_500],
    ["no duration: the default", { ...classic, read_timeout: "1 s" }, (c) => c.readTimeoutMs, 30_000],
    ["a negative limit is off", { ...http, exec_timeout: "-5s" }, (c) => c.execTimeoutMs, 0],
    ["a negative interval is none", { ...http, healthcheck_interval: "-5s" }, (c) => c.healthcheckIntervalMs, 0],
    ["every single space splits", { fprocess: 'a b  "c d"' }, (c) => c.command, ["a", "b", "", '"c', 'd"']],
    ["function_process wins", { ...http, function_process: "x y" }, (c) => c.command, ["x", "y"]],
    ["only in the of family", { ...classic, function_process: "x" }, (c) => c.command, ["cat"]],
    ["http_upstream_url wins", { ...http, http_upstream_url: "http://h" }, (c) => c.http.upstream.port, 80],
    ["base path without last slash", { ...http, upstream_url: "http://h:1/a/" }, (c) => c.http.upstream.basePath, "/a"],
    ["IPv6", { ...http, upstream_url: "http://[::1]:9" }, (c) => c.http.upstream.host, "::1"],
    ["bad port: default and a warning", { ...classic, port: "abc" }, (c) => [c.port, c.warnings.length], [8080, 1]],
    ["bad max_inflight: off", { ...classic, max_inflight: "-1" }, (c) => c.maxInflight, 0],
    ["empty switch keeps its default", { ...classic, combine_output: "" }, (c) => c.classic.combineOutput, true],
    ["other text turns it off", { ...classic, cgi_headers: "1" }, (c) => c.classic.cgiHeaders, false],
    ["classic: only true is true", { ...classic, suppress_lock: "1" }, (c) => c.suppressLock, false],
    ["of: 1 is true as well", { ...http, suppress_lock: "1" }, (c) => c.suppressLock, true],
    ["prefix_logs takes Go's booleans", { ...http, prefix_logs: "F" }, (c) => c.log.prefix, false],
    ["and stays on otherwise", { ...http, prefix_logs: "no" }, (c) => c.log.prefix, true],
    ["the old name of buffering", { ...http, buffer_http: "true" }, (c) => c.http.bufferRequestBody, true],
    ["TLS has its own port", { ...http, upstream_url: "https://h" }, (c) => c.http.upstream.port, 443],
    ["static needs no command", { mode: "static" }, (c) => c.staticPath, "/home/app/public"],
    ["both names of the call id switch", { ...http, log_call_id: "T" }, (c) => c.log.callId, true],
    ["the lock moves with TMPDIR", { ...classic, TMPDIR: "/x" }, (c) => c.lockFile, "/x/.lock"],
    ["timeouts that do not fit are told", { ...http, write_timeout: "1s" }, (c) => c.warnings.length, 1],
  ];
  for (const [sentence, env, pick, expected] of rows)
    test(sentence, () => assert.deepEqual(pick(readConfig(env, "fwatchdog")), expected));

  const refused: [string, Record<string, string>][] = [
    ["no command", {}],
    ["an empty function_process", { ...http, function_process: "" }],
    ["no upstream", { fprocess: "x", mode: "http" }],
    ["an upstream without scheme", { ...http, upstream_url: "localhost:3000" }],
    ["a buffer size that is none", { ...http, log_buffer_size: "abc" }],
    ["a port that is none, in the of family", { ...http, port: "abc" }],
    ["an unknown log format", { ...classic, log_format: "xml" }],
    ["tokens for a function without name", { ...classic, jwt_auth: "true" }],
    ["an upstream port that is none", { ...http, upstream_url: "http://127.0.0.1:70000" }],
    ["no time to write", { ...http, write_timeout: "0" }],
    ["a mode that is no more", { ...classic, mode: "afterburn" }],
  ];
  for (const [sentence, env] of refused)
    test(`refused: ${sentence}`, () =>
      assert.throws(
        () => readConfig(env, "fwatchdog"),
        (e) => isAppError(e, "CONFIG") && !e.message.includes("\n"),
      ));

  test("the name it is called by chooses the mode when nothing else does", () => {
    assert.equal(modeOf({}, "/bin/fwatchdog"), "classic");
    assert.equal(modeOf({ mode: "" }, "fwatchdog"), "classic");
    assert.equal(modeOf({}, "/bin/of-watchdog"), "streaming");
  });
});
