import type { LogConfig } from "./config.ts";
import { jsonLine, timestamp } from "./log.ts";
import type { Output } from "./output.ts";

/** A line is held back until it is complete, up to log_buffer_size bytes; beyond, it is passed on in pieces. */
const LINE_BUFFER = 64 * 1024;
const NEWLINE = 10;

/** Takes one output of the function. */
export interface Relay {
  /** A returned promise resolves when more may come. */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /** The function closed this output. */
  end(): void;
}

/**
 * Passes one output of the function on to ours, line by line, with the prefix `<timestamp> stdout: ` unless
 * `prefix_logs` is off. A line may have any length: memory stays bounded and nothing is lost or cut
 * (the reference stops reading for good at 64 KiB, and the function then blocks: contracts/watchdog.md §5, 2).
 */
export class LineRelay implements Relay {
  readonly #out: Output;
  readonly #name: "stdout" | "stderr" | null;
  readonly #lineBuffer: number;
  #partial: Uint8Array[] = [];
  #partialSize = 0;
  #inLongLine = false;

  /** `name` goes into the prefix; null for none. */
  constructor(out: Output, name: "stdout" | "stderr" | null, lineBuffer = LINE_BUFFER) {
    this.#out = out;
    this.#name = name;
    this.#lineBuffer = lineBuffer;
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
    if (this.#partialSize < this.#lineBuffer && this.#partial.length < 4096) return undefined;
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

/** One JSON object per line of the function, for `log_format=json`; a line beyond the buffer comes in several. */
export class JsonRelay implements Relay {
  readonly #out: Output;
  readonly #name: "stdout" | "stderr";
  readonly #lineBuffer: number;
  #partial: Uint8Array[] = [];
  #size = 0;

  constructor(out: Output, name: "stdout" | "stderr", lineBuffer: number) {
    this.#out = out;
    this.#name = name;
    this.#lineBuffer = lineBuffer;
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    let room: Promise<void> | undefined;
    let at = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, at)) {
      room = this.#emit(chunk.subarray(at, end), false) ?? room;
      at = end + 1;
    }
    if (at === chunk.length) return room;
    this.#partial.push(chunk.subarray(at));
    this.#size += chunk.length - at;
    return this.#size < this.#lineBuffer ? room : (this.#emit(new Uint8Array(0), true) ?? room);
  }

  end(): void {
    if (this.#size > 0) void this.#emit(new Uint8Array(0), false);
  }

  #emit(tail: Uint8Array, partial: boolean): Promise<void> | undefined {
    const line = Buffer.concat([...this.#partial, tail]).toString("utf8");
    this.#partial = [];
    this.#size = 0;
    return this.#out.write(
      jsonLine({ source: "function", stream: this.#name, msg: line, ...(partial && { partial }) }),
    );
  }
}

/** The relay for one output of the function that the configuration asks for (contracts/watchdog.md §3.4). */
export function relayFor(out: Output, name: "stdout" | "stderr", config: LogConfig): Relay {
  // Without the prefix lines pass as they are, in both formats: they may be JSON already.
  if (config.format === "json" && config.prefix) return new JsonRelay(out, name, config.lineBuffer);
  return new LineRelay(out, config.prefix ? name : null, config.lineBuffer);
}
