import { log, timestamp } from "./log.ts";
import type { Output } from "./output.ts";

/** A line is held back until it is complete, up to this many bytes; beyond, it is passed on piece by piece. */
const LINE_BUFFER = 64 * 1024;
const NEWLINE = 10;

/**
 * Passes one output of the function on to ours, line by line, with the prefix `<timestamp> stdout: ` unless
 * `prefix_logs` is off. A line may have any length: memory stays bounded and nothing is lost or cut
 * (the reference stops reading for good at 64 KiB, and the function then blocks: contracts/watchdog.md §5, 2).
 */
export class LineRelay {
  readonly #out: Output;
  readonly #name: "stdout" | "stderr" | null;
  #partial: Uint8Array[] = [];
  #partialSize = 0;
  #inLongLine = false;

  /** `name` goes into the prefix; null for none. */
  constructor(out: Output, name: "stdout" | "stderr" | null) {
    this.#out = out;
    this.#name = name;
  }

  /** Takes a piece of output; a returned promise resolves when more may come. */
  write(chunk: Uint8Array): Promise<void> | undefined {
    let room: Promise<void> | undefined;
    let at = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, at)) {
      room = this.#completeLine(chunk.subarray(at, end + 1)) ?? room;
      at = end + 1;
    }
    return at < chunk.length ? (this.#keep(chunk.subarray(at)) ?? room) : room;
  }

  /** The function closed its output: a last line without newline gets one. */
  end(): void {
    if (this.#inLongLine || this.#partialSize > 0) void this.#completeLine(Uint8Array.of(NEWLINE));
  }

  #completeLine(tail: Uint8Array): Promise<void> | undefined {
    if (!this.#inLongLine) this.#prefix();
    this.#flushPartial();
    const room = this.#out.write(tail);
    if (this.#inLongLine) this.#out.holdLines(false);
    this.#inLongLine = false;
    return room;
  }

  #keep(piece: Uint8Array): Promise<void> | undefined {
    if (this.#inLongLine) return this.#out.write(piece);
    this.#partial.push(piece);
    this.#partialSize += piece.length;
    if (this.#partialSize < LINE_BUFFER && this.#partial.length < 4096) return undefined;
    this.#prefix();
    this.#inLongLine = true;
    this.#out.holdLines(true);
    return this.#flushPartial();
  }

  #flushPartial(): Promise<void> | undefined {
    let room: Promise<void> | undefined;
    for (const piece of this.#partial) room = this.#out.write(piece);
    this.#partial = [];
    this.#partialSize = 0;
    return room;
  }

  #prefix(): void {
    if (this.#name) void this.#out.write(`${timestamp(Date.now())}${this.#name}: `);
  }
}

/** A relay for `name`, announced in the log as the reference does. */
export function startRelay(out: Output, name: "stdout" | "stderr", prefixed: boolean): LineRelay {
  log(`Started logging: ${name} from function.`);
  return new LineRelay(out, prefixed ? name : null);
}
