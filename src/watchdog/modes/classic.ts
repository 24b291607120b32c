import { type Child, describeExit, type Exit, killGroup, type Sink, StartError, startChild } from "../child.ts";
import type { Config } from "../config.ts";
import { requestEnvironment } from "../environment.ts";
import type { Exchange, Handler } from "../http1/server-connection.ts";
import { sniffContentType } from "../http1/sniff.ts";
import { log } from "../log.ts";
import { BaseHandler, type Mode, secondsSince } from "./mode.ts";

const verbs = new Set(["POST", "PUT", "PATCH", "DELETE", "GET"]);

/** One process per request: body to its standard input, its output is the answer (contracts/watchdog.md §3.1). */
export class ClassicMode implements Mode {
  readonly #config: Config;
  readonly #environment: Record<string, string>;
  readonly #running = new Set<number>();

  constructor(config: Config, environment: Record<string, string>) {
    this.#config = config;
    this.#environment = environment;
  }

  start(): Promise<string> {
    return new Promise(() => {}); // nothing here can end before it is told to
  }

  ready(): boolean {
    return true;
  }

  serve(exchange: Exchange): Handler {
    if (!verbs.has(exchange.request.method)) {
      exchange.respond(405, "", "");
      return new BaseHandler();
    }
    return new ClassicCall(exchange, this.#config, this.#environment, this.#running);
  }

  /** Kills the processes whose callers were given up on. */
  async stop(): Promise<void> {
    for (const pid of this.#running) killGroup(pid, "SIGKILL");
  }
}

/**
 * body ──complete──► process ──exit and end of output──► answer
 * A client that leaves does not stop its process: it may be doing something worth finishing.
 */
class ClassicCall extends BaseHandler {
  readonly #exchange: Exchange;
  readonly #config: Config;
  readonly #environment: Record<string, string>;
  readonly #running: Set<number>;
  #body: Buffer[] = [];
  readonly #stdout: Uint8Array[] = [];
  readonly #stderr: Uint8Array[] = [];
  #child: Child | null = null;
  #answered = false;
  #deadline: NodeJS.Timeout | null = null;

  constructor(exchange: Exchange, config: Config, environment: Record<string, string>, running: Set<number>) {
    super();
    this.#exchange = exchange;
    this.#config = config;
    this.#environment = environment;
    this.#running = running;
    exchange.readBody();
  }

  override bodyData(piece: Buffer): void {
    this.#body.push(piece);
  }

  override bodyError(why: string): void {
    this.#answer(400, "", Buffer.from(`${why}\n`));
  }

  override bodyEnd(): void {
    this.work = this.#run();
  }

  override clientGone(): void {
    this.#answered = true;
  }

  async #run(): Promise<void> {
    log("Forking fprocess.");
    let exit: Exit;
    try {
      this.#child = startChild(this.#childOptions());
      this.#body = [];
      this.#running.add(this.#child.pid);
      this.#watchTime();
      exit = await this.#child.closed;
    } catch (e) {
      if (!(e instanceof StartError)) throw e;
      this.#fail(e.message);
      return;
    } finally {
      if (this.#child) this.#running.delete(this.#child.pid);
      if (this.#deadline) clearTimeout(this.#deadline);
    }
    if (!this.#config.classic.combineOutput && this.#stderr.length > 0)
      log(`stderr: ${Buffer.concat(this.#stderr).toString()}`);
    if (exit.code === 0) this.#succeed();
    else this.#fail(describeExit(exit));
  }

  #childOptions(): Parameters<typeof startChild>[0] {
    const { combineOutput, cgiHeaders } = this.#config.classic;
    return {
      command: this.#config.command,
      env: cgiHeaders ? requestEnvironment(this.#environment, this.#exchange.request) : this.#environment,
      stdin: this.#body,
      stdout: this.#collect(this.#stdout),
      stderr: combineOutput ? "stdout" : this.#collect(this.#stderr),
    };
  }

  #collect(into: Uint8Array[]): Sink {
    return (chunk) => {
      if (!this.#answered) into.push(chunk);
      return undefined;
    };
  }

  /** The timer is the call's own, not the connection's: it must also ring when the client has left. */
  #watchTime(): void {
    const limit = this.#config.execTimeoutMs;
    if (limit <= 0) return;
    this.#deadline = setTimeout(() => {
      log(`Killing process: ${this.#config.commandLine}`);
      // The whole group: what the process started must not keep its output, and so this answer, open.
      killGroup(this.#child!.pid, "SIGKILL");
      this.#answer(408, "", Buffer.from("Killed process.\n"));
    }, limit);
  }

  #succeed(): void {
    if (this.#answered) return;
    const body = Buffer.concat(this.#stdout);
    const seconds = secondsSince(this.#exchange.startedAt);
    log(`Wrote ${body.length} Bytes - Duration: ${seconds}s`);
    const type = this.#config.classic.contentType || fieldOf(this.#exchange, "content-type");
    this.#answer(200, `X-Duration-Seconds: ${seconds}\r\n`, body, type);
  }

  #fail(why: string): void {
    this.#answer(500, "", Buffer.concat([Buffer.from(`${why}\n`), ...this.#stdout]));
  }

  #answer(status: number, fields: string, body: Buffer, type = ""): void {
    if (this.#answered) return;
    this.#answered = true;
    this.#stdout.length = 0;
    const contentType = type || (body.length > 0 ? sniffContentType(body) : "");
    this.#exchange.respond(status, contentType ? `Content-Type: ${contentType}\r\n${fields}` : fields, body);
  }
}

/** The first value of a request field; empty when there is none. */
function fieldOf(exchange: Exchange, name: string): string {
  const { fields } = exchange.request;
  for (let i = 0; i < fields.length; i += 2) if (fields[i]!.toLowerCase() === name) return fields[i + 1]!;
  return "";
}
