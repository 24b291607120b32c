import { type Child, type ChildOptions, describeExit, killGroup, StartError, startChild } from "../child.ts";
import type { Config } from "../config.ts";
import type { Exchange, Handler } from "../http1/exchange.ts";
import { log } from "../log.ts";
import { BaseHandler, type Mode } from "./mode.ts";

/** What the modes with one process per request have in common. */
export abstract class ForkMode implements Mode {
  readonly config: Config;
  readonly environment: Record<string, string>;
  /** Process groups of calls under way. */
  readonly running = new Set<number>();

  constructor(config: Config, environment: Record<string, string>) {
    this.config = config;
    this.environment = environment;
  }

  start(): Promise<string> {
    return new Promise(() => {}); // nothing here can end before it is told to
  }

  ready(): boolean {
    return true;
  }

  abstract serve(exchange: Exchange): Handler;

  signal(): void {}

  /** Kills the processes whose callers were given up on. */
  async stop(): Promise<void> {
    for (const pid of this.running) killGroup(pid, "SIGKILL");
  }
}

/** How a process did: null for success, else the reason in the words of Go's os/exec. */
export type Verdict = string | null;

/** One call and its process. */
export abstract class ForkCall extends BaseHandler {
  readonly exchange: Exchange;
  readonly config: Config;
  readonly mode: ForkMode;
  child: Child | null = null;

  constructor(exchange: Exchange, mode: ForkMode) {
    super();
    this.exchange = exchange;
    this.config = mode.config;
    this.mode = mode;
  }

  /** exec_timeout has passed and the process has been killed. */
  protected abstract timedOut(): void;

  /** Starts the process. Throws StartError. */
  protected fork(options: Omit<ChildOptions, "command">): Child {
    const child = startChild({ ...options, command: this.config.command });
    this.child = child;
    this.mode.running.add(child.pid);
    return child;
  }

  /** Waits for the end of the process and of its outputs. */
  protected async verdict(child: Child): Promise<Verdict> {
    const timer = this.#watchTime(child);
    try {
      const exit = await child.closed;
      return exit.code === 0 ? null : describeExit(exit);
    } catch (e) {
      if (e instanceof StartError) return e.message;
      throw e;
    } finally {
      clearTimeout(timer);
      this.mode.running.delete(child.pid);
    }
  }

  /** The timer is the call's own, not the connection's: it must also ring when the client has left. */
  #watchTime(child: Child): NodeJS.Timeout | undefined {
    const limit = this.config.execTimeoutMs;
    if (limit <= 0) return undefined;
    return setTimeout(
      () => {
        log(`Killing process: ${this.config.commandLine}`);
        // The whole group: what the process started must not keep its output, and so this answer, open.
        killGroup(child.pid, "SIGKILL");
        child.giveUpOutput();
        this.timedOut();
      },
      Math.min(limit, 2 ** 31 - 1),
    );
  }
}

/**
 * A call whose body is complete before the process starts, and whose output is complete before the answer does.
 *
 *   body ──complete──► process ──exit and end of output──► answer
 *
 * A client that leaves does not stop the process: it may be doing something worth finishing.
 */
export abstract class CollectingCall extends ForkCall {
  readonly #output: Uint8Array[] = [];
  #body: Buffer[] = [];
  protected answered = false;

  constructor(exchange: Exchange, mode: ForkMode) {
    super(exchange, mode);
    exchange.readBody();
  }

  /** What the process gets. */
  protected abstract options(body: Buffer[]): Pick<ChildOptions, "env" | "stdin" | "stderr">;
  /** The process has ended, with everything that it wrote. */
  protected abstract finished(verdict: Verdict, output: Buffer): void;

  override bodyData(piece: Buffer): void {
    this.#body.push(piece);
  }

  override bodyEnd(): void {
    this.work = this.#run();
  }

  override clientGone(): void {
    this.answered = true;
  }

  async #run(): Promise<void> {
    let verdict: Verdict;
    try {
      const { env, stdin, stderr } = this.options(this.#body);
      const child = this.fork({ env, stdin, stderr, stdout: (chunk) => this.keep(chunk) });
      this.#body = [];
      verdict = await this.verdict(child);
    } catch (e) {
      if (!(e instanceof StartError)) throw e;
      verdict = e.message;
    }
    this.finished(verdict, Buffer.concat(this.#output));
  }

  /** Keeps a piece of output, as long as there is somebody to send it to. */
  protected keep(chunk: Uint8Array): undefined {
    if (!this.answered) this.#output.push(chunk);
  }

  /** Answers, once. */
  protected respond(status: number, fields: string, body: string | Buffer): void {
    if (this.answered) return;
    this.answered = true;
    this.#output.length = 0;
    this.exchange.respond(status, fields, body);
  }
}
