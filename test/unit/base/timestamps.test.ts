import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { parseTimestamp } from "../../../src/base/timestamps.ts";

suite("times of RFC 3339", () => {
  const rows: [text: string, is: string | undefined][] = [
    ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"],
    ["2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05.600Z"],
    ["2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123Z"],
    ["2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05.000Z"],
    ["2026-01-02T23:04:05-05:30", "2026-01-03T04:34:05.000Z"],
    ["0050-01-01T00:00:00Z", "0050-01-01T00:00:00.000Z"],
    ["2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"],
    ["2025-02-29T00:00:00Z", undefined],
    ["2026-13-01T00:00:00Z", undefined],
    ["2026-00-01T00:00:00Z", undefined],
    ["2026-01-02T24:00:00Z", undefined],
    ["2026-01-02T00:60:00Z", undefined],
    ["2026-01-02T00:00:60Z", undefined],
    ["2026-01-02T00:00:00+24:00", undefined],
    ["2026-01-02T00:00:00", undefined],
    ["2026-01-02 00:00:00Z", undefined],
    ["2026-01-02t00:00:00z", undefined],
    ["2026-1-2T00:00:00Z", undefined],
    ["2026-01-02T00:00:00.Z", undefined],
    ["2026-01-02T00:00:00+0200", undefined],
    [" 2026-01-02T00:00:00Z", undefined],
    ["", undefined],
  ];
  for (const [text, is] of rows)
    test(`"${text}" is ${is ?? "none"}`, () => {
      const ms = parseTimestamp(text);
      assert.equal(ms === undefined ? undefined : new Date(Math.floor(ms)).toISOString(), is);
    });

  test("microseconds are kept", () => assert.equal(parseTimestamp("1970-01-01T00:00:00.0012345Z"), 1.234));
});
