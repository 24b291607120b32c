import assert from "node:assert/strict";
import { suite, test } from "node:test";
import {
  compact,
  decodeMarks,
  encodeMarks,
  endOf,
  maxMarks,
  offsetSince,
  startOf,
  timeAt,
} from "../../../src/logs/marks.ts";

/** Began at 1000; ended at 10 at 2000, at 30 at 3000.5, at 60 at 4000. */
const marks = [0, 1000, 10, 2000, 30, 3000.5, 60, 4000];

suite("marks of a log", () => {
  const times: [end: number, time: number][] = [
    [0, 1000],
    [1, 2000],
    [10, 2000],
    [11, 3000.5],
    [30, 3000.5],
    [60, 4000],
    [61, 4000],
  ];
  for (const [end, time] of times)
    test(`what ends at ${end} was written at ${time}`, () => assert.equal(timeAt(marks, end), time));

  const offsets: [since: number, offset: number][] = [
    [0, 0],
    [1500, 0],
    [2000, 0],
    [2000.1, 10],
    [3000.5, 10],
    [3500, 30],
    [4000, 30],
    [4001, 60],
  ];
  for (const [since, offset] of offsets)
    test(`what was written at ${since} or later lies behind ${offset}`, () =>
      assert.equal(offsetSince(marks, since), offset));

  test("a clock that was set back hides nothing", () => {
    const odd = [0, 9000, 10, 9500, 20, 1000, 30, 1100];
    assert.equal(offsetSince(odd, 500), 0);
    assert.equal(offsetSince(odd, 1050), 20);
  });

  test("none at all", () => {
    assert.deepEqual([startOf([]), endOf([]), timeAt([], 5), offsetSince([], 5)], [0, 0, 0, 0]);
  });

  test("of a file whose beginning was dropped begin where it begins now", () => {
    assert.deepEqual(compact(marks, 16), [16, 3000.5, 30, 3000.5, 60, 4000]);
    assert.deepEqual(compact(marks, 30), [30, 3000.5, 60, 4000]);
    assert.deepEqual(compact(marks, 60), [60, 4000]);
  });

  test("that are many are thinned, and no line gets an earlier time for it", () => {
    const many: number[] = [];
    for (let i = 0; i < maxMarks; i++) many.push(i * 10, 1000 + i);
    const few = compact(many, 0);
    assert.ok(few.length <= maxMarks + 4, `${few.length / 2} marks`);
    assert.deepEqual(few.slice(-2), many.slice(-2));
    for (let end = 5; end < maxMarks * 10 - 10; end += 9973) {
      const [was, is] = [timeAt(many, end), timeAt(few, end)];
      assert.ok(is === was || is === was + 1, `${end}: ${was} became ${is}`);
    }
  });

  const bytes = encodeMarks(marks);
  const garbled = Buffer.from(bytes);
  garbled.fill(0xff, 32, 40);
  const rows: [says: string, bytes: Buffer, is: number[]][] = [
    ["come back from disk", bytes, marks],
    ["that a crash cut off are those before", bytes.subarray(0, 50), marks.slice(0, 6)],
    ["that are garbled are those before", garbled, marks.slice(0, 4)],
    ["that go back are those before", encodeMarks([...marks, 5, 5000]), marks],
    ["of an empty file are none", Buffer.alloc(0), []],
  ];
  for (const [says, given, is] of rows) test(says, () => assert.deepEqual(decodeMarks(given), is));
});
