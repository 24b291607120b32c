import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { formatBytes, parseCpu, parseMemory } from "../../../src/base/quantities.ts";

suite("an amount of memory", () => {
  const good: [text: string, bytes: number][] = [
    ["1", 1],
    ["128Mi", 128 * 2 ** 20],
    ["128M", 128e6],
    ["1k", 1000],
    ["1Ki", 1024],
    ["1.5Gi", 1.5 * 2 ** 30],
    [".5Gi", 2 ** 29],
    ["2G", 2e9],
    ["1Ti", 2 ** 40],
    ["1e3", 1000],
    ["1E3", 1000],
    ["2e+2", 200],
    ["1500m", 2],
    ["+64Mi", 64 * 2 ** 20],
    ["1.0000001", 2],
  ];
  for (const [text, bytes] of good) test(`"${text}" is ${bytes} bytes`, () => assert.equal(parseMemory(text), bytes));

  for (const text of [
    "",
    "0",
    "-1",
    "-128Mi",
    "Mi",
    "128mi",
    "128MB",
    "128 Mi",
    "128K",
    "1e",
    "1.2.3",
    "NaN",
    "Infinity",
    "0x10",
    "9E",
    "1e999",
    "1Mi2",
  ])
    test(`"${text}" is none`, () => assert.equal(parseMemory(text), undefined));
});

suite("a number of cores", () => {
  const good: [text: string, cores: number][] = [
    ["1", 1],
    ["0.5", 0.5],
    ["500m", 0.5],
    ["100m", 0.1],
    ["1500m", 1.5],
    ["2.0", 2],
  ];
  for (const [text, cores] of good) test(`"${text}" is ${cores}`, () => assert.equal(parseCpu(text), cores));
  for (const text of ["", "0", "0m", "-1", "half", "1 core", "m"])
    test(`"${text}" is none`, () => assert.equal(parseCpu(text), undefined));
});

suite("bytes for people", () => {
  const rows: [bytes: number, text: string][] = [
    [0, "0 B"],
    [0.5, "0.5 B"],
    [1, "1 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [128 * 2 ** 20, "128 MiB"],
    [5 * 2 ** 40, "5 TiB"],
    [5000 * 2 ** 40, "5000 TiB"],
  ];
  for (const [bytes, text] of rows) test(`${bytes} is ${text}`, () => assert.equal(formatBytes(bytes), text));
});
