import { CHUNKED } from "../../http1/head.ts";
import { StartError } from "../child.ts";
import { requestEnvironment } from "../environment.ts";
import type { Exchange, Handler } from "../http1/exchange.ts";
import { log, logAccess, stderr } from "../log.ts";
import { relayFor } from "../relay.ts";
import { ForkCall, ForkMode, type Verdict } from "./fork.ts";
import { secondsSince } from "./mode.ts";

/** One process per request, bytes passed on as they come, both ways at once (contracts/watchdog.md §3.3). */
export class StreamingMode extends ForkMode {
  override serve(exchange: Exchange): Handler {
    return new StreamingCall(exchange, this);
  }
}

/** The client has left: nobody reads the output any more. */
class Gone extends Error {}

/**
 * The head of the answer leaves with the first byte of output, so that a process which fails before it said anything
 * is still a 500. Later, the only way to say that something went wrong is to end the connection (§3.3, §5).
 */
class StreamingCall extends ForkCall {
  #bytes = 0;
  #gone = false;
  #killed = false;
  #room: PromiseWithResolvers<void> | null = null;

  constructor(exchange: Exchange, mode: ForkMode) {
    super(exchange, mode);
    this.work = this.#run();
    exchange.readBody();
  }

  override bodyData(piece: Buffer): void {
    const room = this.child?.stdin?.write(piece);
    if (!room) return;
    this.exchange.pauseBody();
    void room.then(() => !this.#gone && this.exchange.resumeBody());
  }

  override bodyEnd(): void {
    this.child?.stdin?.end();
  }

  /** The function makes what it can of the part that came, as in the reference. */
  override bodyError(why: string): void {
    log(`Reading the request body: ${why}`);
    this.child?.stdin?.end();
  }

  override drain(): void {
    this.#room?.resolve();
    this.#room = null;
  }

  override clientGone(): void {
    this.#gone = true;
    this.child?.stdin?.end();
    this.drain();
  }

  protected override timedOut(): void {
    this.#killed = true;
    this.#end("signal: killed");
  }

  async #run(): Promise<void> {
    const errors = relayFor(stderr, "stderr", this.config.log);
    try {
      const child = this.fork({
        env: requestEnvironment(this.mode.environment, this.exchange.request, "of"),
        stdin: "stream",
        stdout: (chunk) => this.#output(chunk),
        stderr: (chunk) => errors.write(chunk),
      });
      this.#end(await this.verdict(child));
    } catch (e) {
      if (e instanceof Gone)
        await this.child!.exited; // it gets SIGPIPE when it writes the next time
      else if (e instanceof StartError) this.#end(e.message);
      else throw e;
    } finally {
      errors.end();
      this.child?.stdin?.end();
    }
  }

  #output(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#gone) throw new Gone();
    if (this.#killed) return undefined;
    this.#bytes += chunk.length;
    if (!this.exchange.headSent) this.exchange.head(200, this.#fields, CHUNKED);
    const room = this.exchange.write(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length));
    this.exchange.flush();
    if (room && this.exchange.writable) return undefined;
    this.#room ??= Promise.withResolvers();
    return this.#room.promise;
  }

  get #fields(): string {
    return `Content-Type: ${this.config.contentType}\r\n`;
  }

  #end(verdict: Verdict): void {
    if (this.#gone) return;
    this.#gone = true;
    if (verdict !== null) log(verdict);
    const { headSent, request, startedAt } = this.exchange;
    const status = verdict === null ? 200 : 500;
    const bytes = verdict === null || headSent ? this.#bytes : verdict.length;
    const seconds = Number(secondsSince(startedAt));
    logAccess({ request, result: String(status), bytes, seconds, callId: this.config.log.callId });
    if (!headSent) this.exchange.respond(status, this.#fields, verdict ?? "");
    else if (verdict === null) this.exchange.end();
    else this.exchange.destroy();
  }
}
