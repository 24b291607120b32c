import { closeSync, openSync, writeSync } from "node:fs";
import { foreign } from "./runtime.ts";

/**
 * Real kernel pipes. Node and Bun give a child UNIX sockets as its standard streams, and a socket cannot be opened
 * through /dev/stdin, /dev/stdout or /dev/stderr (ENXIO): `echo oops > /dev/stderr` in a shell function, and
 * `readFileSync("/dev/stdin")` in a Node one, would fail. One pipe for both outputs also keeps them in the order
 * in which they were written. pipe2 is the one system call for which there is no portable API.
 */
export interface Pipe {
  read: number;
  write: number;
}

const O_CLOEXEC = 0o2000000; // fcntl.h; the spawned child gets its ends through dup2, which clears it
const MFD_CLOEXEC = 1; // linux/memfd.h

/** Bytes that a new pipe takes without a reader: pipe(7), "Pipe capacity". */
const PIPE_CAPACITY = 65536;

type Symbols = Record<"pipe2" | "memfd_create", (...args: (number | ArrayBufferView)[]) => number>;
let symbols: Symbols | null | undefined;

function load(): Symbols | null {
  if (symbols !== undefined) return symbols;
  try {
    const library = foreign()?.dlopen("libc.so.6", {
      pipe2: { args: ["ptr", "i32"], returns: "i32" },
      memfd_create: { args: ["ptr", "u32"], returns: "i32" },
    });
    symbols = (library?.symbols as Symbols | undefined) ?? null;
  } catch {
    symbols = null; // a sandbox without executable memory: children get sockets, as on Node
  }
  return symbols;
}

/** Whether `openPipe` and `openFilled` work in this process. */
export function pipesAvailable(): boolean {
  return load() !== null;
}

/** A new pipe. The caller closes both ends. */
export function openPipe(): Pipe {
  // A fresh array handed over as an object: a pointer taken once from a small typed array goes stale.
  const ends = new Int32Array(2);
  if (load()!.pipe2(ends, O_CLOEXEC) !== 0) throw new Error("no pipe: too many open files");
  return { read: ends[0]!, write: ends[1]! };
}

/**
 * A descriptor from which `body` can be read: a pipe filled beforehand when it fits, an unnamed memory file when it
 * does not. Nobody has to feed the child while it runs, and one that ignores its input cannot disturb us (EPIPE).
 */
export function openFilled(body: readonly Uint8Array[]): number {
  const total = body.reduce((sum, chunk) => sum + chunk.length, 0);
  return total <= PIPE_CAPACITY ? filledPipe(body) : filledMemory(body);
}

function filledPipe(body: readonly Uint8Array[]): number {
  const pipe = openPipe();
  try {
    for (const chunk of body) writeAll(pipe.write, chunk);
    return pipe.read;
  } finally {
    closeSync(pipe.write);
  }
}

function filledMemory(body: readonly Uint8Array[]): number {
  const fd = load()!.memfd_create(Buffer.from("stdin\0"), MFD_CLOEXEC);
  if (fd < 0) throw new Error("no memory file: too many open files");
  try {
    for (const chunk of body) writeAll(fd, chunk);
    return openSync(`/proc/self/fd/${fd}`, "r"); // a second opening has its own offset, at the start
  } finally {
    closeSync(fd);
  }
}

function writeAll(fd: number, chunk: Uint8Array): void {
  for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
}
