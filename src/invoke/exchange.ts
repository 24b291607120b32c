import type { IncomingMessage, ServerResponse } from "node:http";
import type { Dispatcher } from "undici";
import { AppError, systemCode } from "../base/errors.ts";
import type { Replica } from "../functions/replica.ts";
import type { Entry } from "../functions/table.ts";
import { type CallHeaders, requestHeaders, responseHeaders } from "./headers.ts";
import { refuse } from "./refuse.ts";

/**
 * One call on its way through a replica: streams the request up and the response down, with back-pressure and aborts
 * in both directions. It owns the replica's count of requests in flight from its construction, before any wake-up,
 * until the response is closed; and the one deadline of the call.
 */
export class Exchange implements Dispatcher.DispatchHandler {
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  readonly #entry: Entry;
  readonly #replica: Replica;
  readonly #call: CallHeaders;
  readonly #timer: NodeJS.Timeout;
  #upstream: Dispatcher.DispatchController | null = null;

  constructor(
    req: IncomingMessage,
    res: ServerResponse,
    entry: Entry,
    replica: Replica,
    call: CallHeaders,
    deadline: number,
  ) {
    this.#req = req;
    this.#res = res;
    this.#entry = entry;
    this.#replica = replica;
    this.#call = call;
    replica.inFlight++;
    this.#timer = setTimeout(timedOut, deadline - performance.now(), this);
    res.once("close", () => this.#closed());
  }

  /** Sends the request. `target` is path and query as they came. */
  dispatch(target: string): void {
    const { headers, method, rawHeaders, socket } = this.#req;
    const hasBody =
      headers["transfer-encoding"] !== undefined ||
      (headers["content-length"] !== undefined && headers["content-length"] !== "0");
    const options = {
      path: target,
      method: method as Dispatcher.HttpMethod,
      headers: requestHeaders(
        rawHeaders,
        this.#call,
        headers.host ?? "",
        `${socket.remoteAddress}:${socket.remotePort}`,
      ),
      body: hasBody ? this.#req : null,
    };
    this.#replica.pool!.dispatch(options, this);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#upstream = controller;
    if (this.#res.destroyed) controller.abort(new Error("the caller left"));
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status < 200) return; // interim answers are not passed on: contracts/api.md §1.4
    this.#res.writeHead(
      status,
      responseHeaders(controller.rawHeaders as Buffer[], status, this.#call, this.#req.headers["content-type"]),
    );
    // an event stream's head must not wait for its first event
    this.#res.flushHeaders();
    this.#res.on("drain", () => controller.resume());
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#res.write(chunk)) controller.pause();
  }

  onResponseEnd(): void {
    this.#res.end();
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.fail(
      error instanceof AppError
        ? error
        : new AppError("UPSTREAM_FAILED", [this.#entry.key, reasonOf(error)], { cause: error }),
    );
  }

  /** Ends the call with an error of the platform; once bytes have been sent, by cutting the connection. */
  fail(error: AppError): void {
    if (this.#res.headersSent) this.#res.destroy();
    else refuse(this.#res, error, this.#call);
  }

  /** The deadline has passed. */
  expire(): void {
    const { timeoutMs, timeoutSource } = this.#entry.policy;
    const error = new AppError("UPSTREAM_TIMEOUT", [this.#entry.key, timeoutMs / 1000, timeoutSource]);
    if (this.#upstream) this.#upstream.abort(error);
    else this.fail(error);
  }

  #closed(): void {
    clearTimeout(this.#timer);
    this.#replica.release();
    if (!this.#res.writableFinished) this.#upstream?.abort(new Error("the caller left"));
  }
}

function timedOut(exchange: Exchange): void {
  exchange.expire();
}

function reasonOf(error: Error): string {
  const code = systemCode(error);
  if (code === "ECONNREFUSED") return "it refused the connection";
  if (code === "UND_ERR_SOCKET" || code === "ECONNRESET")
    return "it closed the connection before its answer was complete";
  return error.message;
}
