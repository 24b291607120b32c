import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { formatDuration, parseDuration } from "../../../src/base/durations.ts";

suite("a duration", () => {
  const good: [text: string, ms: number, says: string][] = [
    ["60", 60_000, "a whole number is seconds"],
    ["0", 0, "zero needs no unit"],
    ["+5", 5000, "a sign is allowed"],
    ["007", 7000, "zeros in front do not matter"],
    ["1m30s", 90_000, "parts add up"],
    ["1h2m3s4ms", 3_723_004, "all parts add up"],
    ["1.5s", 1500, "a part may be a decimal"],
    [".5m", 30_000, "a decimal may begin with its point"],
    ["5.s", 5000, "or end with it"],
    ["250ms", 250, "ms are milliseconds, not minutes"],
    ["10us", 0.01, "microseconds"],
    ["10µs", 0.01, "microseconds with the micro sign"],
    ["10μs", 0.01, "microseconds with the Greek letter"],
    ["1000000ns", 1, "nanoseconds"],
    ["-2s", -2000, "negative ones exist; who takes none says so"],
    ["1s1s", 2000, "units may repeat"],
    ["0s", 0, "zero with a unit"],
  ];
  for (const [text, ms, says] of good)
    test(`"${text}" is ${ms} ms: ${says}`, () => assert.equal(parseDuration(text), ms));

  for (const text of [
    "",
    " ",
    "s",
    "1.5",
    "-5",
    "1d",
    "1 s",
    " 1s",
    "1s ",
    "1m30",
    "one",
    "1e3s",
    "1S",
    "--1s",
    "1,5s",
  ])
    test(`"${text}" is none`, () => assert.equal(parseDuration(text), undefined));

  const formatted: [ms: number, text: string][] = [
    [0, "0ms"],
    [0.25, "0.25ms"],
    [999, "999ms"],
    [1000, "1s"],
    [2500, "2.5s"],
    [60_000, "1m0s"],
    [90_000, "1m30s"],
    [3_600_000, "1h0m0s"],
    [3_723_004, "1h2m3.004s"],
    [-90_000, "-1m30s"],
  ];
  for (const [ms, text] of formatted)
    test(`${ms} ms are written ${text}, and read back the same`, () => {
      assert.equal(formatDuration(ms), text);
      assert.equal(parseDuration(text), ms);
    });
});
