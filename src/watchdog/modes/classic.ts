import { fieldValue, type RequestHead } from "../../http1/head.ts";
import type { ChildOptions } from "../child.ts";
import type { ClassicConfig } from "../config.ts";
import { canonicalName, requestEnvironment, splitTarget } from "../environment.ts";
import type { Exchange, Handler } from "../http1/exchange.ts";
import { sniffContentType } from "../http1/sniff.ts";
import { log, stdout } from "../log.ts";
import { CollectingCall, ForkMode, type Verdict } from "./fork.ts";
import { BaseHandler, secondsSince } from "./mode.ts";

const verbs = new Set(["POST", "PUT", "PATCH", "DELETE", "GET"]);

/** One process per request: body to its standard input, its output is the answer (contracts/watchdog.md §3.1). */
export class ClassicMode extends ForkMode {
  override serve(exchange: Exchange): Handler {
    if (verbs.has(exchange.request.method)) return new ClassicCall(exchange, this);
    exchange.respond(405, "", "");
    return new BaseHandler();
  }
}

class ClassicCall extends CollectingCall {
  readonly #stderr: Uint8Array[] = [];

  get #options(): ClassicConfig {
    return this.config.classic;
  }

  override bodyError(why: string): void {
    this.#answer(400, "", Buffer.from(`${why}\n`));
  }

  protected override options(body: Buffer[]): Pick<ChildOptions, "env" | "stdin" | "stderr"> {
    const { combineOutput, cgiHeaders, marshalRequest } = this.#options;
    const { request } = this.exchange;
    log("Forking fprocess.");
    if (this.#options.debugHeaders) printFields("in", request.fields);
    return {
      env: cgiHeaders ? requestEnvironment(this.mode.environment, request) : this.mode.environment,
      stdin: marshalRequest ? [marshalled(request, body)] : body,
      stderr: combineOutput ? "stdout" : (chunk) => void this.#stderr.push(chunk),
    };
  }

  protected override finished(verdict: Verdict, output: Buffer): void {
    if (!this.#options.combineOutput && this.#stderr.length > 0)
      log(`stderr: ${Buffer.concat(this.#stderr).toString()}`);
    if (this.#options.writeDebug) this.#writeDebug(verdict, output);
    if (verdict === null) this.#succeed(output);
    else this.#answer(500, "", Buffer.concat([Buffer.from(`${verdict}\n`), output]));
  }

  protected override timedOut(): void {
    this.#answer(408, "", Buffer.from("Killed process.\n"));
  }

  #writeDebug(verdict: Verdict, output: Buffer): void {
    const { path, query } = splitTarget(this.exchange.request.target);
    log(`Query  ${query}`);
    log(`Path  ${path}`);
    if (verdict === null) void stdout.write(output);
    else {
      log(`Success=false, Error=${verdict}`);
      log(`Out=${output}`);
    }
  }

  #succeed(output: Buffer): void {
    if (this.answered) return;
    const seconds = secondsSince(this.exchange.startedAt);
    log(`${this.#options.writeDebug ? "" : `Wrote ${output.length} Bytes - `}Duration: ${seconds}s`);
    const type = this.#options.contentType || fieldValue(this.exchange.request.fields, "content-type");
    if (this.#options.debugHeaders)
      printFields("out", ["X-Duration-Seconds", seconds, ...(type ? ["Content-Type", type] : [])]);
    this.#answer(200, `X-Duration-Seconds: ${seconds}\r\n`, output, type);
  }

  #answer(status: number, fields: string, body: Buffer, type = ""): void {
    const contentType = type || (body.length > 0 ? sniffContentType(body) : "");
    this.respond(status, contentType ? `Content-Type: ${contentType}\r\n${fields}` : fields, body);
  }
}

/** `debug_headers`: one line per name on standard output. */
function printFields(way: "in" | "out", fields: readonly string[]): void {
  for (const [name, values] of byName(fields)) void stdout.write(`[${way}] ${name}=[${values.join(" ")}]\n`);
}

/** `marshal_request`: head and body as one JSON object, header names sorted. */
function marshalled(request: RequestHead, body: Buffer[]): Buffer {
  const header = Object.fromEntries([...byName(request.fields)].sort(([a], [b]) => (a < b ? -1 : 1)));
  return Buffer.from(JSON.stringify({ header, body: { raw: Buffer.concat(body).toString("base64") } }));
}

/** Values by canonical name. Host and Transfer-Encoding are no headers here (contracts/watchdog.md §2.1). */
function byName(fields: readonly string[]): Map<string, string[]> {
  const map = new Map<string, string[]>();
  for (let i = 0; i < fields.length; i += 2) {
    const name = canonicalName(fields[i]!);
    if (name === "Host" || name === "Transfer-Encoding") continue;
    map.set(name, [...(map.get(name) ?? []), fields[i + 1]!]);
  }
  return map;
}
