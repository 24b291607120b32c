import { closeSync, constants, fstatSync, openSync, writeSync } from "node:fs";
import { systemCode } from "../base/errors.ts";

/** Bytes waiting above which producers are asked to pause. */
const HIGH_WATER = 256 * 1024;
/** Bytes waiting above which the watchdog's own lines are dropped, and counted. */
const LINE_LIMIT = 1024 * 1024;
/** Milliseconds between two tries while whoever reads our output does not. */
const RETRY_MS = 10;

/**
 * One output of this process (1 or 2). What is written during one turn of the event loop leaves in one system call.
 * A reader that stalls never blocks the proxy: the descriptor of a pipe is opened anew without blocking where that
 * is allowed, and what does not fit waits here, bounded.
 */
export class Output {
  readonly #fd: number;
  #waiting: (string | Uint8Array)[] = [];
  #size = 0;
  #scheduled = false;
  #drained: PromiseWithResolvers<void> | null = null;
  #held: string[] | null = null;
  #dropped = 0;
  #dead = false;

  constructor(fd: number) {
    this.#fd = nonBlocking(fd);
  }

  /** Queues bytes. A returned promise resolves when there is room again. */
  write(data: string | Uint8Array): Promise<void> | undefined {
    if (this.#dead) return undefined;
    this.#waiting.push(data);
    this.#size += data.length;
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => this.#flush());
    }
    if (this.#size < HIGH_WATER) return undefined;
    this.#drained ??= Promise.withResolvers();
    return this.#drained.promise;
  }

  /** Queues a line of the watchdog itself: never in the middle of somebody's long line, never without bound. */
  writeLine(line: string): void {
    if (this.#held && this.#held.length < 1000) this.#held.push(line);
    else if (this.#size > LINE_LIMIT) this.#dropped++;
    else void this.write(line);
  }

  /** Says that a line is being written in pieces (true), or that it has ended (false). */
  holdLines(hold: boolean): void {
    if (hold) this.#held ??= [];
    else if (this.#held) {
      const lines = this.#held.join("");
      this.#held = null;
      if (lines) void this.write(lines);
    }
  }

  /** Writes what is waiting now, as far as the reader takes it. For the end of the process. */
  flushNow(): void {
    this.holdLines(false);
    for (let tries = 0; this.#size > 0 && !this.#dead && tries < 20; tries++) {
      if (tries > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
      this.#writeWaiting();
    }
  }

  #flush(): void {
    this.#scheduled = false;
    if (!this.#writeWaiting()) {
      this.#scheduled = true;
      setTimeout(() => this.#flush(), RETRY_MS);
      return;
    }
    this.#drained?.resolve();
    this.#drained = null;
    if (this.#dropped > 0) void this.write(`(${this.#dropped} log lines dropped: nobody read them)\n`);
    this.#dropped = 0;
  }

  /** False when the reader takes no more at the moment; the rest is kept. */
  #writeWaiting(): boolean {
    const parts = this.#waiting.map((part) => (typeof part === "string" ? Buffer.from(part) : part));
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    let at = 0;
    try {
      while (at < bytes.length) at += writeSync(this.#fd, bytes, at);
    } catch (e) {
      if (systemCode(e) === "EAGAIN") {
        this.#keep(bytes.subarray(at));
        return false;
      }
      this.#dead = true; // EPIPE: nobody will ever read this output again
    }
    this.#keep(null);
    return true;
  }

  #keep(rest: Uint8Array | null): void {
    this.#waiting = rest ? [rest] : [];
    this.#size = rest?.length ?? 0;
  }
}

/**
 * The same pipe under a new, non-blocking description. Setting the flag on `fd` itself would set it for everybody
 * who inherited the same one. Files and terminals do not stall, and are used as they are; so is a pipe that belongs
 * to another user (EACCES).
 */
function nonBlocking(fd: number): number {
  try {
    if (!fstatSync(fd).isFIFO()) return fd;
    const own = openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
    if (own > 2) return own;
    closeSync(own); // would take the place of a standard stream that was closed
    return fd;
  } catch {
    return fd;
  }
}
