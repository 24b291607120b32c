import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { parseSchedule } from "../../../src/trigger/schedule.ts";

/** The first instants after `after`, without seconds and milliseconds that are zero. */
function instants(text: string, after: string, count: number, zone = "UTC"): string[] {
  const schedule = parseSchedule(text, zone);
  const found: string[] = [];
  for (let at = Date.parse(after); found.length < count; ) {
    at = schedule.next(at)!;
    found.push(new Date(at).toISOString().replace(/(:00)?\.000Z$/, ""));
  }
  return found;
}

suite("a schedule", () => {
  const after = "2026-01-01T20:00:10Z"; // a Thursday
  const rows: [text: string, first: string, second: string][] = [
    ["* * * * *", "2026-01-01T20:01", "2026-01-01T20:02"],
    ["  */15   * * * *  ", "2026-01-01T20:15", "2026-01-01T20:30"],
    ["5/25 * * * *", "2026-01-01T20:05", "2026-01-01T20:30"],
    ["0 9-17/4 * * MON-FRI", "2026-01-02T09:00", "2026-01-02T13:00"],
    ["0 0 1,15 * ?", "2026-01-15T00:00", "2026-02-01T00:00"],
    ["0 0 13 * FRI", "2026-01-02T00:00", "2026-01-09T00:00"],
    ["0 0 * * 0", "2026-01-04T00:00", "2026-01-11T00:00"],
    ["0 0 29 FEB *", "2028-02-29T00:00", "2032-02-29T00:00"],
    ["*/20 * * * * *", "2026-01-01T20:00:20", "2026-01-01T20:00:40"],
    ["@hourly", "2026-01-01T21:00", "2026-01-01T22:00"],
    ["@daily", "2026-01-02T00:00", "2026-01-03T00:00"],
    ["@midnight", "2026-01-02T00:00", "2026-01-03T00:00"],
    ["@weekly", "2026-01-04T00:00", "2026-01-11T00:00"],
    ["@monthly", "2026-02-01T00:00", "2026-03-01T00:00"],
    ["@yearly", "2027-01-01T00:00", "2028-01-01T00:00"],
    ["@annually", "2027-01-01T00:00", "2028-01-01T00:00"],
    ["@every 1m30s", "2026-01-01T20:01:40", "2026-01-01T20:03:10"],
    ["@every 1.5s", "2026-01-01T20:00:11", "2026-01-01T20:00:12"],
    ["CRON_TZ=Europe/Berlin 0 6 * * *", "2026-01-02T05:00", "2026-01-03T05:00"],
    ["TZ=Asia/Kolkata 0 6 * * *", "2026-01-02T00:30", "2026-01-03T00:30"],
    ["CRON_TZ=Asia/Tokyo @daily", "2026-01-02T15:00", "2026-01-03T15:00"],
  ];
  for (const [text, ...expected] of rows) test(text, () => assert.deepEqual(instants(text, after, 2), expected));

  test("goes by the given zone when it names none", () =>
    assert.deepEqual(instants("0 6 * * *", after, 1, "America/New_York"), ["2026-01-02T11:00"]));

  const faults: [text: string, why: RegExp][] = [
    ["", /0 fields/],
    ["* * * *", /4 fields/],
    ["* * * * * * *", /7 fields/],
    ["2026-01-01T00:00:00", /1 fields/],
    ["60 * * * *", /60/],
    ["* 24 * * *", /24/],
    ["a b c d e", /illegal/],
    ["10-5 * * * *", /larger/],
    ["*/0 * * * *", /stepping/],
    ["0 0 31 2 *", /never comes/],
    ["@reboot", /@reboot/],
    ["@fortnightly", /@fortnightly/],
    ["@every", /@every/],
    ["@every 1 hour", /@every/],
    ["@every soon", /duration of 1s/],
    ["@every 500ms", /duration of 1s/],
    ["@every -1h", /duration of 1s/],
    ["CRON_TZ=Mars/Olympus * * * * *", /"Mars\/Olympus" is not a time zone/],
    ["CRON_TZ= * * * * *", /"" is not a time zone/],
  ];
  for (const [text, why] of faults)
    test(`"${text}" is refused with a sentence`, () => assert.throws(() => parseSchedule(text, "UTC"), why));
});

suite("a schedule where clocks are changed", () => {
  const rows: [says: string, text: string, zone: string, after: string, expected: string[]][] = [
    [
      "what is due in the hour that is left out comes at its end",
      ...(["30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"] as const),
      ["2026-03-29T01:00", "2026-03-30T00:30"],
    ],
    [
      "what is due twice comes the first time",
      ...(["30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z"] as const),
      ["2026-10-25T00:30", "2026-10-26T01:30"],
    ],
    [
      "in the south too, by half an hour",
      ...(["45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z"] as const),
      ["2026-04-04T14:45", "2026-04-05T15:15"],
    ],
    [
      "a day whose midnight is left out begins at one",
      ...(["0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z"] as const),
      ["2018-11-04T03:00", "2018-11-05T02:00"],
    ],
    [
      "every hour is every hour in spring",
      ...(["0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z"] as const),
      ["2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T02:00"],
    ],
    [
      "and in autumn",
      ...(["0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z"] as const),
      ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"],
    ],
    [
      "two hours of which one is left out: the same instant comes once",
      ...(["0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"] as const),
      ["2026-03-29T01:00", "2026-03-30T00:00"],
    ],
  ];
  for (const [says, text, zone, after, expected] of rows)
    test(says, () => assert.deepEqual(instants(text, after, expected.length, zone), expected));
});
