/** Programs that scripts and tests run beside themselves: started, waited for, and never left behind. */
import { type StdioOptions, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

/** How a program ended: `code` is null when a signal ended it. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A running program. Disposing it stops it. */
export interface Child extends AsyncDisposable {
  readonly pid: number;
  /** Resolves when the program has ended; never rejects. */
  readonly exited: Promise<Exit>;
  /** SIGTERM, and SIGKILL when it still runs after `graceMs` (default 10 s). Harmless when it has ended. */
  stop(graceMs?: number): Promise<Exit>;
  /** SIGKILL at once, for tests of what survives it. */
  kill9(): Promise<Exit>;
}

export interface ChildOptions {
  /** Where standard output and error are appended to; without it they are ours. */
  readonly logFile?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/**
 * Starts `command` in a session of its own, so that a Ctrl-C at the terminal reaches only us and we decide the order
 * of stopping. `setpriv --pdeathsig` makes the kernel send it SIGTERM when we die without having stopped it.
 */
export async function startChild(command: string, args: string[], options: ChildOptions = {}): Promise<Child> {
  const log = options.logFile === undefined ? undefined : openSync(options.logFile, "a");
  try {
    const stdio: StdioOptions = log === undefined ? ["ignore", "inherit", "inherit"] : ["ignore", log, log];
    const running = spawn("setpriv", ["--pdeathsig", "TERM", "--", command, ...args], {
      stdio,
      detached: true,
      env: options.env ?? process.env,
    });
    const { promise: exited, resolve } = Promise.withResolvers<Exit>();
    running.once("exit", (code, signal) => resolve({ code, signal }));
    await new Promise<void>((started, failed) => {
      running.once("spawn", started);
      running.once("error", (cause) => failed(new Error(`cannot start ${command}: ${cause.message}`, { cause })));
    });
    return new Running(running.pid!, exited);
  } finally {
    if (log !== undefined) closeSync(log);
  }
}

class Running implements Child {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  #ended = false;

  constructor(pid: number, exited: Promise<Exit>) {
    this.pid = pid;
    this.exited = exited;
    void exited.then(() => {
      this.#ended = true;
    });
  }

  async stop(graceMs = 10_000): Promise<Exit> {
    this.#signal("SIGTERM");
    const exit = await Promise.race([this.exited, delay(graceMs, undefined, { ref: false })]);
    return exit ?? this.kill9();
  }

  kill9(): Promise<Exit> {
    this.#signal("SIGKILL");
    return this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Never to a program that has ended: its number may be another's by now. */
  #signal(signal: NodeJS.Signals): void {
    if (this.#ended) return;
    try {
      process.kill(this.pid, signal);
    } catch {
      // ended this moment; `exited` tells
    }
  }
}

export interface ReadyOptions {
  /** What is waited for, as a message names it. */
  readonly what: string;
  readonly timeoutMs: number;
  /** The end of this file goes into the message when it fails. */
  readonly logFile?: string;
  readonly signal?: AbortSignal;
}

/**
 * Asks `ready` every 20 ms until it says true. Rejects when `child` ends first, when the time is up, or with the
 * signal's reason.
 */
export async function waitReady(
  child: Pick<Child, "exited">,
  ready: () => Promise<boolean>,
  options: ReadyOptions,
): Promise<void> {
  let exit: Exit | undefined;
  void child.exited.then((e) => {
    exit = e;
  });
  const deadline = performance.now() + options.timeoutMs;
  while (!(await ready())) {
    options.signal?.throwIfAborted();
    if (exit) throw new Error(`${options.what} ended before it was ready (${sayExit(exit)})${tail(options.logFile)}`);
    if (performance.now() > deadline)
      throw new Error(`${options.what} was not ready within ${options.timeoutMs / 1000} s${tail(options.logFile)}`);
    await delay(20);
  }
}

/** `exit code 1` or `signal SIGKILL`. */
export function sayExit(exit: Exit): string {
  return exit.signal ? `signal ${exit.signal}` : `exit code ${exit.code}`;
}

function tail(logFile: string | undefined): string {
  if (logFile === undefined) return "";
  const last = readFileSync(logFile, "utf8").trimEnd().split("\n").slice(-3).join("\n  ");
  return `; the end of ${logFile}:\n  ${last}`;
}
