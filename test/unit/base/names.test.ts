import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isName, isNamespace, isSecretName, keyOf, splitAddress } from "../../../src/base/names.ts";

suite("the name of a function", () => {
  for (const name of ["a", "7", "web", "web-2", "a--b", "0web", "a".repeat(63)])
    test(`may be ${name}`, () => assert.ok(isName(name)));

  const bad = ["", "-web", "web-", "Web", "we_b", "we.b", "we b", "wéb", "a".repeat(64), "..", "web\n", "a/b", "web\0"];
  for (const name of bad) test(`may not be ${JSON.stringify(name)}`, () => assert.ok(!isName(name)));
});

suite("the name of a namespace", () => {
  for (const name of ["a", "a-b-c", "openfaas-fn"]) test(`may be ${name}`, () => assert.ok(isNamespace(name)));
  for (const name of ["a--b", "", "..", "A", "a.b"])
    test(`may not be ${JSON.stringify(name)}`, () => assert.ok(!isNamespace(name)));
});

suite("the name of a secret", () => {
  for (const name of ["a", "db.password", "API_KEY", "x-1", "9", "a".repeat(253)])
    test(`may be ${name}`, () => assert.ok(isSecretName(name)));

  const bad = ["", ".", "..", "a..b", "../a", "a/b", "/a", ".a", "a.", "-a", "a-", "a b", "a\\b", "a\0", "a\n", "ä"];
  for (const name of [...bad, "a".repeat(254)])
    test(`may not be ${JSON.stringify(name)}`, () => assert.ok(!isSecretName(name)));
});

suite("an address", () => {
  const rows: [address: string, name: string, namespace: string][] = [
    ["web", "web", "default"],
    ["web.fn", "web", "fn"],
    ["a.b.fn", "a.b", "fn"],
    ["web.", "web", ""],
    [".fn", "", "fn"],
    ["", "", "default"],
  ];
  for (const [address, name, namespace] of rows)
    test(`${JSON.stringify(address)} is "${name}" in "${namespace}": the last dot divides`, () =>
      assert.deepEqual(splitAddress(address, "default"), { name, namespace }));

  test("is what a function's key reads as", () => {
    const id = { name: "web", namespace: "fn" };
    assert.equal(keyOf(id), "web.fn");
    assert.deepEqual(splitAddress(keyOf(id), "default"), id);
  });
});
