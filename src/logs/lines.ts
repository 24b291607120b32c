import { type FileHandle, open } from "node:fs/promises";
import { systemCode } from "../base/errors.ts";
import type { LogFile } from "./log-file.ts";
import { endOf, type Marks, timeAt } from "./marks.ts";

/** A longer line is told in pieces of this size, so that a program that never ends its line needs no memory of ours. */
export const maxLineBytes = 64 * 1024;

const chunkBytes = 128 * 1024;
const newline = 0x0a;
const empty = Buffer.alloc(0);

export interface TimedLine {
  /** Ms since the epoch. */
  readonly time: number;
  /** Without its end (`\n` or `\r\n`); what is no UTF-8 is U+FFFD. */
  readonly text: string;
}

/** Reads the lines of a log forwards, one at a time, also while it grows and while its beginning is dropped. */
export class LineReader {
  readonly file: LogFile;
  /** Nothing behind it is read. */
  limit: number;
  #offset: number;
  #epoch: number;
  /** What lies behind `#offset`, and how much of it is known to hold no line end. */
  #buffer: Buffer = empty;
  #searched = 0;
  #marks: Marks = [];

  constructor(file: LogFile, offset: number, limit: number) {
    this.file = file;
    this.limit = limit;
    this.#offset = offset;
    this.#epoch = file.epoch;
  }

  /** The next line, undefined when there is no whole one. With `rest`, one without an end counts as whole. */
  async next(rest: boolean): Promise<TimedLine | undefined> {
    const length = await this.#whole(rest);
    if (length === undefined) return undefined;
    const end = this.#offset + length;
    if (endOf(this.#marks) < end) this.#marks = await this.file.marksFrom(this.#offset);
    const text = this.#buffer.toString("utf8", 0, withoutEnd(this.#buffer, length));
    this.#advance(length);
    return { time: timeAt(this.#marks, end), text };
  }

  /** As `next`, for who only counts. */
  async skip(rest: boolean): Promise<boolean> {
    const length = await this.#whole(rest);
    if (length !== undefined) this.#advance(length);
    return length !== undefined;
  }

  /** Another one that stands where this one does. */
  copy(): LineReader {
    return new LineReader(this.file, this.#offset, this.limit);
  }

  #advance(length: number): void {
    this.#buffer = this.#buffer.subarray(length);
    this.#offset += length;
    this.#searched = 0;
  }

  /** Length of the next line with its end, or of a piece of it. */
  async #whole(rest: boolean): Promise<number | undefined> {
    for (;;) {
      if (this.#epoch !== this.file.epoch) this.#beginAnew();
      const at = this.#buffer.indexOf(newline, this.#searched);
      if (at >= 0 && at <= maxLineBytes) return at + 1;
      if (this.#buffer.length > maxLineBytes) return pieceOf(this.#buffer);
      this.#searched = this.#buffer.length;
      if (!(await this.#fill())) return rest && this.#buffer.length > 0 ? this.#buffer.length : undefined;
    }
  }

  /** Reads on; false when there is nothing more. */
  async #fill(): Promise<boolean> {
    const from = Math.max(this.#offset + this.#buffer.length, this.file.start);
    if (from > this.#offset + this.#buffer.length) {
      // the reader was too slow, or is at the beginning of what is left: that is hardly where a line begins
      this.#buffer = empty;
      this.#searched = 0;
      this.#offset = await lineBehind(this.file, from);
      return this.#offset < this.limit;
    }
    const chunk = await readAt(this.file, from, Math.min(chunkBytes, this.limit - from));
    if (this.#epoch !== this.file.epoch || this.file.start > from) return true; // dropped while it was read
    if (chunk.length === 0) return false;
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    return true;
  }

  #beginAnew(): void {
    this.#epoch = this.file.epoch;
    this.#offset = 0;
    this.#searched = 0;
    this.#buffer = empty;
    this.#marks = [];
    this.limit = Math.min(this.limit, this.file.size);
  }
}

/** Where the line begins that holds the byte at `offset`, or what counts as its beginning when it is too long. */
export async function lineAt(file: LogFile, offset: number): Promise<number> {
  if (offset <= file.start) return lineBehind(file, file.start);
  const from = Math.max(file.start, offset - maxLineBytes);
  const before = await readAt(file, from, offset - from);
  const end = before.lastIndexOf(newline);
  if (end >= 0) return from + end + 1;
  return from === file.start ? lineBehind(file, from) : offset;
}

/** Where the last `count` lines before `to` begin, not before `from`. */
export async function lastLines(file: LogFile, count: number, from: number, to: number): Promise<number> {
  let lines = 0;
  for (let end = to - 1; end > from; ) {
    const begin = Math.max(from, end - chunkBytes);
    const chunk = await readAt(file, begin, end - begin);
    for (let at = chunk.lastIndexOf(newline); at >= 0; at = at === 0 ? -1 : chunk.lastIndexOf(newline, at - 1)) {
      lines++;
      if (lines === count) return begin + at + 1;
    }
    end = begin;
  }
  return from;
}

/** The first line that begins behind a hole: its own beginning may be in it. */
async function lineBehind(file: LogFile, start: number): Promise<number> {
  if (start === 0) return 0;
  const chunk = await readAt(file, start, Math.min(maxLineBytes, file.size - start));
  const end = chunk.indexOf(newline);
  return end < 0 ? start : start + end + 1;
}

async function readAt(file: LogFile, offset: number, length: number): Promise<Buffer> {
  if (length <= 0) return empty;
  let handle: FileHandle;
  try {
    handle = await open(file.path, "r");
  } catch (e) {
    if (systemCode(e) === "ENOENT") return empty; // its function is gone
    throw e;
  }
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(length), 0, length, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** As much of a long line as makes a piece, without cutting a character in two. */
function pieceOf(buffer: Buffer): number {
  for (let end = maxLineBytes; end > maxLineBytes - 4; end--) if ((buffer[end]! & 0xc0) !== 0x80) return end;
  return maxLineBytes;
}

function withoutEnd(buffer: Buffer, length: number): number {
  if (buffer[length - 1] !== newline) return length;
  return buffer[length - 2] === 0x0d ? length - 2 : length - 1;
}
