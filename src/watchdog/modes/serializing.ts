import type { ChildOptions } from "../child.ts";
import { requestEnvironment } from "../environment.ts";
import type { Exchange, Handler } from "../http1/exchange.ts";
import { log, logAccess, stderr } from "../log.ts";
import { type Relay, relayFor } from "../relay.ts";
import { CollectingCall, ForkMode, type Verdict } from "./fork.ts";
import { secondsSince } from "./mode.ts";

/** Like classic mode, in the ways of the of family (contracts/watchdog.md §3.2). */
export class SerializingMode extends ForkMode {
  override serve(exchange: Exchange): Handler {
    return new SerializingCall(exchange, this);
  }
}

class SerializingCall extends CollectingCall {
  #errors: Relay | null = null;

  override bodyError(why: string): void {
    this.#answer(400, why);
  }

  protected override options(body: Buffer[]): Pick<ChildOptions, "env" | "stdin" | "stderr"> {
    const relay = relayFor(stderr, "stderr", this.config.log);
    this.#errors = relay;
    return {
      env: requestEnvironment(this.mode.environment, this.exchange.request, "of"),
      stdin: body,
      stderr: (chunk) => relay.write(chunk),
    };
  }

  protected override finished(verdict: Verdict, output: Buffer): void {
    this.#errors?.end();
    if (verdict !== null) log(verdict);
    this.#answer(verdict === null ? 200 : 500, verdict ?? output);
  }

  protected override timedOut(): void {
    this.#answer(500, "signal: killed");
  }

  #answer(status: number, body: string | Buffer): void {
    if (this.answered) return;
    const seconds = secondsSince(this.exchange.startedAt);
    const { callId } = this.config.log;
    const { request } = this.exchange;
    logAccess({ request, result: String(status), bytes: body.length, seconds: Number(seconds), callId });
    this.respond(status, `Content-Type: ${this.config.contentType}\r\nX-Duration-Seconds: ${seconds}\r\n`, body);
  }
}
