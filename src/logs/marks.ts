/**
 * When a log's bytes were written. The shim writes what a function says as it is, without times, so napd notes them
 * beside the file: a mark says that at some time the file ended at some offset. A line has the time of the first mark
 * at or behind its end: no line is ever dated before it was written, so none is lost to a query that begins at a time.
 *
 * Marks lie flat, `offset, time, offset, time, …`, in the order they were made; times are ms since the epoch, with
 * fractions. The first one is the beginning of what the file still holds. Times may go back when the clock was set.
 */
export type Marks = readonly number[];

/** Marks that a file of them may have; 16 bytes each. Above it they are thinned, see `compact`. */
export const maxMarks = 65_536;

const bytesPerNumber = 8;

export function startOf(marks: Marks): number {
  return marks[0] ?? 0;
}

/** Offset of the newest mark: what lies behind it has no time yet. */
export function endOf(marks: Marks): number {
  return marks.at(-2) ?? 0;
}

/** When the byte before `end` was written, at the latest. */
export function timeAt(marks: Marks, end: number): number {
  let low = 0;
  let high = marks.length / 2 - 1; // of what is behind the last mark, its time is the best guess
  while (low < high) {
    const middle = (low + high) >> 1;
    if (marks[2 * middle]! < end) low = middle + 1;
    else high = middle;
  }
  return marks[2 * high + 1] ?? 0;
}

/** Everything with a time of `since` or later lies behind this offset. */
export function offsetSince(marks: Marks, since: number): number {
  for (let i = marks.length - 2; i > 0; i -= 2) if (marks[i + 1]! < since) return marks[i]!;
  return startOf(marks);
}

/** The marks of a file that now begins at `start`, every second one if they are many; the last one always stays. */
export function compact(marks: Marks, start: number): number[] {
  const kept = [start, timeAt(marks, start)];
  const thin = marks.length / 2 > maxMarks / 2;
  for (let i = 0; i < marks.length; i += 2) {
    if (marks[i]! <= start) continue;
    if (!thin || (i / 2) % 2 === 1 || i === marks.length - 2) kept.push(marks[i]!, marks[i + 1]!);
  }
  return kept;
}

export function encodeMarks(marks: Marks): Buffer {
  const bytes = Buffer.alloc(marks.length * bytesPerNumber);
  for (const [i, number] of marks.entries()) bytes.writeDoubleLE(number, i * bytesPerNumber);
  return bytes;
}

/** What a crash cut off in the middle, or a disk garbled, counts as never written. */
export function decodeMarks(bytes: Buffer): number[] {
  const marks: number[] = [];
  for (let at = 0; at + 2 * bytesPerNumber <= bytes.length; at += 2 * bytesPerNumber) {
    const offset = bytes.readDoubleLE(at);
    const time = bytes.readDoubleLE(at + bytesPerNumber);
    if (!Number.isSafeInteger(offset) || offset < (marks.at(-2) ?? 0) || !Number.isFinite(time)) break;
    marks.push(offset, time);
  }
  return marks;
}
