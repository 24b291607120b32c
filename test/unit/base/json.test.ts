import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { parseJson, spelled } from "../../../src/base/json.ts";

const parse = (text: string) => parseJson(Buffer.from(text));

suite("JSON from clients", () => {
  test("is what it says, with or without a byte order mark", () => {
    for (const mark of ["", "\ufeff"]) assert.deepEqual(parse(`${mark}{"a":[1,"ü",null]}`), { a: [1, "ü", null] });
  });

  test("keeps keys that objects have by themselves as keys", () => {
    const text = '{"__proto__":{"x":1},"constructor":2}';
    const value = parse(text) as Record<string, unknown>;
    assert.deepEqual(Object.keys(value), ["__proto__", "constructor"]);
    assert.equal(value.x, undefined);
  });

  for (const text of ["0", "7", "18446744073709551615"])
    test(`has ${text} as a number of replicas`, () =>
      assert.deepEqual(parse(`{"Replicas":${text}}`), { Replicas: Number(text) }));
  for (const text of ["-1", "-0", "1.0", "1e0", "18446744073709551616", `1${"0".repeat(400)}`])
    test(`has no number in ${text.slice(0, 20)} replicas, and one in ${text.slice(0, 20)} of anything else`, () =>
      assert.deepEqual(parse(`{"replicas":${text},"other":${text}}`), { replicas: Number.NaN, other: Number(text) }));

  const bad: { says: string; bytes: Buffer; why: RegExp }[] = [
    { says: "nothing", bytes: Buffer.alloc(0), why: /end of JSON/ },
    { says: "half an object", bytes: Buffer.from('{"secret":"hidden"'), why: /position 18/ },
    { says: "a word", bytes: Buffer.from("hidden"), why: /Unexpected token 'h'$/ },
    { says: "text behind it", bytes: Buffer.from('{"a":"hidden"} hidden'), why: /position 15/ },
    { says: "a byte that is no UTF-8", bytes: Buffer.from([0x22, 0xff, 0x22]), why: /not UTF-8/ },
    { says: "half a character", bytes: Buffer.from([0x22, 0xc3, 0x22]), why: /not UTF-8/ },
    { says: "too many brackets", bytes: Buffer.from("[".repeat(1e6) + "]".repeat(1e6)), why: /too deep/ },
  ];
  for (const { says, bytes, why } of bad)
    test(`that is ${says} is refused without telling what it holds`, () =>
      assert.throws(
        () => parseJson(bytes),
        (e: Error) => why.test(e.message) && !e.message.includes("hidden"),
      ));
});

suite("the spelling of keys", () => {
  test("becomes ours where it is ours but for the case", () => {
    const given = { SERVICE: 1, envvars: { SERVICE: 2 }, other: 3 };
    assert.deepEqual(spelled(given, ["service", "envVars"]), { service: 1, envVars: { SERVICE: 2 }, other: 3 });
  });
  test("of two, the last counts", () => assert.deepEqual(spelled({ a: 1, A: 2 }, ["a"]), { a: 2 }));
  for (const value of [undefined, null, 5, "a", ["A"]])
    test(`of ${JSON.stringify(value)} is no matter`, () => assert.deepEqual(spelled(value, ["a"]), value));
});
