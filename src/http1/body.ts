import { CHUNKED, UNTIL_CLOSE } from "./head.ts";

/** The bytes of a body are not what its framing promised. */
export class BodyError extends Error {}

/**
 * Takes a body out of the bytes of a connection. `read` gives the next piece of it, or null when it needs more
 * bytes; `used` then says how many of the offered ones belong to this message.
 */
export interface BodyDecoder {
  readonly done: boolean;
  /** How many bytes of what was offered have been taken by the last `read`. */
  readonly used: number;
  read(bytes: Buffer): Buffer | null;
}

/** A decoder for a body of `length` bytes, CHUNKED or UNTIL_CLOSE. */
export function decoderFor(length: number): BodyDecoder {
  if (length === CHUNKED) return new ChunkedDecoder();
  return new LengthDecoder(length === UNTIL_CLOSE ? Number.POSITIVE_INFINITY : length);
}

class LengthDecoder implements BodyDecoder {
  used = 0;
  #left: number;

  constructor(length: number) {
    this.#left = length;
  }

  get done(): boolean {
    return this.#left === 0;
  }

  read(bytes: Buffer): Buffer | null {
    const piece = bytes.length <= this.#left ? bytes : bytes.subarray(0, this.#left);
    this.used = piece.length;
    this.#left -= piece.length;
    return piece.length > 0 ? piece : null;
  }
}

/** Bytes of one chunk-size line with its extensions, and of all trailer fields together. */
const MAX_LINE = 4096;
const MAX_TRAILER = 64 * 1024;

/** Chunked bodies, RFC 9112 §7.1. Extensions and trailers are read and dropped (contracts/watchdog.md §2). */
class ChunkedDecoder implements BodyDecoder {
  done = false;
  used = 0;
  /** "size" → "data" → "after" → "size" … → "trailer". */
  #state: "size" | "data" | "after" | "trailer" = "size";
  #left = 0;
  #trailerSize = 0;

  read(bytes: Buffer): Buffer | null {
    this.used = 0;
    while (!this.done) {
      if (this.#state === "data") {
        if (this.used === bytes.length) return null;
        return this.#data(bytes);
      }
      const line = this.#line(bytes);
      if (line === null) return null;
      this.#control(line);
    }
    return null;
  }

  #data(bytes: Buffer): Buffer {
    const piece = bytes.subarray(this.used, this.used + this.#left);
    this.used += piece.length;
    this.#left -= piece.length;
    if (this.#left === 0) this.#state = "after";
    return piece;
  }

  /** The next line without its end, or null when it is not complete. */
  #line(bytes: Buffer): string | null {
    const end = bytes.indexOf("\r\n", this.used, "latin1");
    const length = (end < 0 ? bytes.length : end) - this.used;
    if (length > MAX_LINE) throw new BodyError("header line too long");
    if (end < 0) return null;
    const line = bytes.toString("latin1", this.used, end);
    this.used = end + 2;
    return line;
  }

  #control(line: string): void {
    if (this.#state === "size") {
      const size = /^([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?$/.exec(line);
      if (!size) throw new BodyError("invalid byte in chunk length");
      this.#left = Number.parseInt(size[1]!, 16);
      this.#state = this.#left > 0 ? "data" : "trailer";
    } else if (this.#state === "after") {
      if (line !== "") throw new BodyError("malformed chunked encoding");
      this.#state = "size";
    } else {
      this.#trailerSize += line.length;
      if (this.#trailerSize > MAX_TRAILER) throw new BodyError("trailer too long");
      this.done = line === "";
    }
  }
}
