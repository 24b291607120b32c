import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { cleanTarget } from "../../../src/admin/paths.ts";

suite("the clean form of a path", () => {
  const clean = ["/", "/a/b", "/a/b/", "/a?x=//y/../z", "/a.b/..c/d..", "/...", "*", "/a%2F%2Fb", "/a/%2e%2eb"];
  for (const target of clean) test(`${target} has none: it is`, () => assert.equal(cleanTarget(target), null));

  const rows: [target: string, to: string][] = [
    ["//", "/"],
    ["//a", "/a"],
    ["/a//b///c", "/a/b/c"],
    ["/a//", "/a/"],
    ["/./a", "/a"],
    ["/a/.", "/a"],
    ["/a/./", "/a/"],
    ["/a/../b", "/b"],
    ["/../../a", "/a"],
    ["/a/..", "/"],
    ["/a/b/../", "/a/"],
    ["/a/%2e%2E/b", "/b"],
    ["/a/.%2e/b?c=%2e//", "/b?c=%2e//"],
    ["//host/path", "/host/path"],
    ["/./\\host", "/%5Chost"],
  ];
  for (const [target, to] of rows) test(`${target} is cleaned to ${to}`, () => assert.equal(cleanTarget(target), to));
});
