import { accessSync, closeSync, constants, statSync } from "node:fs";
import type { Writable } from "node:stream";
import { systemCode } from "../base/errors.ts";
import { openFilled, openPipe, pipesAvailable } from "./pipes.ts";
import { type BunSink, bun } from "./runtime.ts";

/** How a process ended: exactly one of both is set. */
export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** Takes one piece of output. The next one is read after a returned promise resolves: that is the back-pressure. */
export type Sink = (chunk: Uint8Array) => Promise<void> | undefined;

export interface ChildOptions {
  command: readonly string[];
  env: Record<string, string>;
  /** What the child reads. `"open"`: a stream that never says anything and never ends; `"stream"`: `Child.stdin`. */
  stdin: readonly Uint8Array[] | "open" | "stream";
  stdout: Sink;
  /** `"stdout"`: both outputs share one stream, in the order in which they were written. */
  stderr: Sink | "stdout";
}

/** Standard input of a child, written while it runs. A child that does not want it is no error. */
export interface Input {
  /** A returned promise resolves when there is room again. */
  write(piece: Uint8Array): Promise<void> | undefined;
  end(): void;
}

export interface Child {
  pid: number;
  /** Null unless the option `stdin` was `"stream"`. */
  stdin: Input | null;
  /** Resolves when the process has ended; its outputs may still be held open by processes it left behind. */
  exited: Promise<Exit>;
  /** Resolves when it has ended and every output has been read to its end, or given up. */
  closed: Promise<Exit>;
  /** Reads no more of its outputs: a process that left the group before a kill may keep them open for ever. */
  giveUpOutput(): void;
}

/** The command could not be started; the message is in the words of Go's os/exec (contracts/watchdog.md §3.1). */
export class StartError extends Error {
  override readonly name = "StartError";
}

/** Processes that the runtime waits for itself: nobody else may collect their exit codes. */
export const ownChildren = new Set<number>();

/** Starts a process at the head of its own process group. Throws StartError. */
export function startChild(options: ChildOptions): Child {
  const file = lookPath(options.command[0] ?? "", process.env.PATH ?? "");
  for (const [name, value] of Object.entries(options.env))
    if (name.includes("\0") || value.includes("\0")) throw new StartError("exec: environment variable contains NUL");
  try {
    return bun && pipesAvailable() ? startOnPipes(file, options) : startOnSockets(file, options);
  } catch (e) {
    throw startError(file, e);
  }
}

/** Signals the whole process group of `pid`; false when none of it is left. */
export function killGroup(pid: number, signal: NodeJS.Signals): boolean {
  if (pid <= 1) return false; // never started; -0 would be our own group
  try {
    process.kill(-pid, signal);
    return true;
  } catch {
    return false; // ESRCH: gone already
  }
}

/** Where `name` is, by the rules of Go's exec.LookPath: a name with a slash is taken as it is. */
export function lookPath(name: string, path: string): string {
  if (name.includes("/")) return name;
  for (const folder of path.split(":")) {
    const file = `${folder || "."}/${name}`;
    if (name !== "" && isProgram(file)) return file;
  }
  throw new StartError(`exec: "${name}": executable file not found in $PATH`);
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function startError(file: string, e: unknown): StartError {
  if (e instanceof StartError) return e;
  const reasons: Record<string, string> = {
    ENOENT: "no such file or directory",
    EACCES: "permission denied",
    ENOEXEC: "exec format error",
    E2BIG: "argument list too long",
    EAGAIN: "resource temporarily unavailable",
    ENOMEM: "cannot allocate memory",
  };
  const code = systemCode(e) ?? "";
  return new StartError(`fork/exec ${file}: ${reasons[code] ?? (code || String(e))}`, { cause: e });
}

const signalWords: Partial<Record<NodeJS.Signals, string>> = {
  SIGHUP: "hangup",
  SIGINT: "interrupt",
  SIGQUIT: "quit",
  SIGILL: "illegal instruction",
  SIGTRAP: "trace/breakpoint trap",
  SIGABRT: "aborted",
  SIGBUS: "bus error",
  SIGFPE: "floating point exception",
  SIGKILL: "killed",
  SIGUSR1: "user defined signal 1",
  SIGSEGV: "segmentation fault",
  SIGUSR2: "user defined signal 2",
  SIGPIPE: "broken pipe",
  SIGALRM: "alarm clock",
  SIGTERM: "terminated",
};

/** `exit status 7` or `signal: killed`, as Go says it (contracts/watchdog.md §3.1). */
export function describeExit(exit: Exit): string {
  return exit.signal ? `signal: ${signalWords[exit.signal] ?? exit.signal}` : `exit status ${exit.code}`;
}

// --- Bun ----------------------------------------------------------------------------------------------------------

function startOnPipes(file: string, { command, env, stdin, stdout, stderr }: ChildOptions): Child {
  const theirs: number[] = []; // ends that belong to the child, and are closed here once it has them
  const ours: number[] = [];
  const output = (): { read: number; write: number } => {
    const pipe = openPipe();
    ours.push(pipe.read);
    theirs.push(pipe.write);
    return pipe;
  };
  let started = false;
  try {
    const feed = typeof stdin === "string" ? openPipe() : null;
    if (feed) ours.push(feed.write);
    const input = feed ? feed.read : openFilled(stdin as readonly Uint8Array[]);
    theirs.push(input);
    const out = output();
    const err = stderr === "stdout" ? null : output();
    const exit = Promise.withResolvers<Exit>();
    const process = bun!.spawn({
      cmd: [file, ...command.slice(1)],
      env,
      stdio: [input, out.write, (err ?? out).write],
      detached: true,
      onExit: (child, code, signal) => {
        ownChildren.delete(child.pid);
        exit.resolve(signal ? { code: null, signal } : { code, signal: null });
      },
    });
    ownChildren.add(process.pid);
    started = true;
    const readers = [new PipeReader(out.read, stdout)];
    if (err) readers.push(new PipeReader(err.read, stderr as Sink));
    // The writing end of "open" stays open as long as this process lives.
    const toChild = feed && stdin === "stream" ? new PipeInput(feed.write) : null;
    const closed = Promise.all(readers.map((reader) => reader.done)).then(() => exit.promise);
    const giveUpOutput = (): void => readers.forEach((reader) => void reader.stop());
    return { pid: process.pid, stdin: toChild, exited: exit.promise, closed, giveUpOutput };
  } finally {
    for (const fd of theirs) closeSync(fd);
    if (!started) for (const fd of ours) closeSync(fd);
  }
}

/** The writing end of a pipe, by Bun's sink: it does not block, and says when the pipe is full. */
class PipeInput implements Input {
  readonly #fd: number;
  readonly #sink: BunSink;
  #open = true;
  #pending: Promise<void> | undefined;

  constructor(fd: number) {
    this.#fd = fd;
    this.#sink = bun!.file(fd).writer();
  }

  write(piece: Uint8Array): Promise<void> | undefined {
    if (!this.#open) return undefined;
    try {
      const wrote = this.#sink.write(piece);
      const flushed = this.#sink.flush();
      if (typeof wrote === "number" && typeof flushed === "number") return undefined;
      this.#pending = this.#settled(Promise.all([wrote, flushed]));
      return this.#pending;
    } catch {
      this.#close();
      return undefined;
    }
  }

  end(): void {
    if (this.#open) void (this.#pending ?? Promise.resolve()).then(() => this.#close());
  }

  async #settled(writing: Promise<unknown>): Promise<void> {
    try {
      await writing;
    } catch {
      this.#close(); // EPIPE: the child does not want the rest
    }
  }

  #close(): void {
    if (!this.#open) return;
    this.#open = false;
    const close = (): void => closeSync(this.#fd);
    try {
      void Promise.resolve(this.#sink.end()).then(close, close);
    } catch {
      close();
    }
  }
}

/** Brings what comes out of a pipe to a sink, and closes it. */
class PipeReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  /** Settles at the end of the output, or when `sink` has failed. */
  readonly done: Promise<void>;

  constructor(fd: number, sink: Sink) {
    this.#reader = bun!.file(fd).stream().getReader();
    this.done = this.#pump(sink).finally(() => closeSync(fd));
  }

  async #pump(sink: Sink): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await this.#reader.read();
        if (done) return;
        await sink(value);
      }
    } finally {
      await this.stop(); // Bun reads from a descriptor of its own
    }
  }

  stop(): Promise<void> {
    return this.#reader.cancel();
  }
}

// --- Node: tests and development ----------------------------------------------------------------------------------

function startOnSockets(file: string, { command, env, stdin, stdout, stderr }: ChildOptions): Child {
  const { spawn } = process.getBuiltinModule("node:child_process"); // by name: it would cost the binary 4 ms of start
  const child = spawn(file, command.slice(1), { env, detached: true, stdio: "pipe" });
  // Node reports a failed start later, but leaves `pid` unset at once.
  if (child.pid === undefined) {
    const failed = Promise.withResolvers<Exit>();
    child.on("error", failed.reject);
    const failure = asStartError(file, failed.promise);
    return { pid: 0, stdin: null, exited: failure, closed: failure, giveUpOutput() {} };
  }
  child.on("error", () => {});
  child.stdin.on("error", () => {}); // EPIPE: the child does not want its input
  if (typeof stdin !== "string") {
    for (const chunk of stdin) child.stdin.write(chunk);
    child.stdin.end();
  }
  const exited = new Promise<Exit>((resolve) => child.on("exit", (code, signal) => resolve({ code, signal })));
  const reads = [readSocket(child.stdout, stdout), readSocket(child.stderr, stderr === "stdout" ? stdout : stderr)];
  const input = stdin === "stream" ? streamInput(child.stdin) : null;
  const closed = Promise.all(reads).then(() => exited);
  const giveUpOutput = (): void => [child.stdout, child.stderr].forEach((stream) => void stream.destroy());
  return { pid: child.pid, stdin: input, exited, closed, giveUpOutput };
}

function streamInput(stream: Writable): Input {
  const room = (): Promise<void> =>
    new Promise((resolve) => {
      stream.once("drain", resolve);
      stream.once("close", resolve);
    });
  return {
    write: (piece) => (stream.destroyed || stream.write(piece) ? undefined : room()),
    end: () => stream.end(),
  };
}

async function asStartError(file: string, failure: Promise<Exit>): Promise<Exit> {
  try {
    return await failure;
  } catch (e) {
    throw startError(file, e);
  }
}

async function readSocket(stream: AsyncIterable<Uint8Array>, sink: Sink): Promise<void> {
  try {
    for await (const chunk of stream) await sink(chunk);
  } catch {
    // ECONNRESET of a killed child, or given up: its output has ended
  }
}
