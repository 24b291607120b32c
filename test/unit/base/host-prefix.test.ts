import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { hostName, parseHostPrefix } from "../../../src/base/host-prefix.ts";

suite("the name in a Host header", () => {
  const rows: [header: string, name: string][] = [
    ["a.example", "a.example"],
    ["A.Example:8080", "a.example"],
    ["a.example.", "a.example"],
    ["a.example.:80", "a.example"],
    ["a.example:", "a.example"],
    ["192.0.2.1:80", "192.0.2.1"],
    ["[2001:DB8::1]", "[2001:db8::1]"],
    ["[2001:db8::1]:80", "[2001:db8::1]"],
    ["XN--bcher-kva.example", "xn--bcher-kva.example"],
    ["", ""],
    [":80", ""],
  ];
  for (const [header, name] of rows) test(`of "${header}" is "${name}"`, () => assert.equal(hostName(header), name));
});

suite("a host and prefix", () => {
  const rows: [text: string, host: string, prefix: string][] = [
    ["a.example", "a.example", ""],
    ["a.example/", "a.example", ""],
    ["A.Example.:443/Shop/", "a.example", "/Shop"],
    ["a.example/a/b.c/~d", "a.example", "/a/b.c/~d"],
    ["a.example/%7Ea/..b/...", "a.example", "/%7Ea/..b/..."],
    ["_x.a-b.xn--bcher-kva.example", "_x.a-b.xn--bcher-kva.example", ""],
  ];
  for (const [text, host, prefix] of rows)
    test(`${text} is one`, () => assert.deepEqual(parseHostPrefix(text), { host, prefix }));

  const wrong = [
    "",
    "/a",
    "localhost",
    "gateway",
    "10.0.0.1",
    "[::1]",
    "a..example",
    ".example.com",
    "-a.example",
    "a-.example",
    "*.example.com",
    "bücher.example",
    "a b.example",
    `${"a".repeat(64)}.example`,
    `${"a.".repeat(130)}example`,
    "http://a.example",
    "u@a.example",
    "gateway.openfaas",
    "gateway.openfaas.svc.cluster.local",
    "web.fn.svc.cluster.local",
    "a.example//b",
    "a.example/./b",
    "a.example/b/..",
    "a.example/b?c",
    "a.example/b#c",
    "a.example/b c",
    "a.example/%zz",
    "a.example/b\\c",
    "a.example/b;c=d",
  ];
  for (const text of wrong) test(`"${text}" is none`, () => assert.equal(typeof parseHostPrefix(text), "string"));
});
