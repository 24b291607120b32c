import { createServer, type Server as NetServer, type Socket } from "node:net";
import { AppError, systemCode } from "../base/errors.ts";
import type { Config } from "./config.ts";
import { splitTarget } from "./environment.ts";
import type { Health } from "./health.ts";
import { type Exchange, type Handler, ServerConnection } from "./http1/server-connection.ts";
import { BaseHandler, type Mode } from "./modes/mode.ts";

/** Accepts connections, answers the reserved routes itself, limits and counts what goes to the function. */
export class Server {
  readonly #config: Config;
  readonly #mode: Mode;
  readonly #health: Health;
  readonly #connections = new Map<Socket, ServerConnection>();
  readonly #listener: NetServer;
  #inflight = 0;
  #closing = false;
  #idle: PromiseWithResolvers<void> | null = null;

  constructor(config: Config, mode: Mode, health: Health) {
    this.#config = config;
    this.#mode = mode;
    this.#health = health;
    // Half-open: a client may close its side after the request and still wait for the answer.
    this.#listener = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
  }

  /** Function calls under way. */
  get inflight(): number {
    return this.#inflight;
  }

  /** Listens on every interface, IPv6 and IPv4; resolves with the port. Throws AppError LISTEN. */
  async listen(): Promise<number> {
    const { port } = this.#config;
    try {
      await this.#bind("::", port);
    } catch (e) {
      if (!["EAFNOSUPPORT", "EADDRNOTAVAIL"].includes(systemCode(e) ?? "")) throw listenError(port, e);
      await this.#bind("0.0.0.0", port).catch((second) => Promise.reject(listenError(port, second)));
    }
    const address = this.#listener.address();
    return typeof address === "object" && address ? address.port : port;
  }

  /** From now on every answer announces the end of its connection. */
  announceClose(): void {
    this.#closing = true;
  }

  /** Stops listening, closes idle connections, and waits for the calls under way, at most `limitMs`. */
  async drain(limitMs: number): Promise<void> {
    this.#closing = true;
    this.#listener.close();
    for (const connection of this.#connections.values()) connection.closeIdle();
    if (this.#inflight === 0) return;
    this.#idle = Promise.withResolvers();
    await Promise.race([this.#idle.promise, new Promise((resolve) => setTimeout(resolve, limitMs))]);
  }

  /** Waits until what has been answered has left, at most `limitMs`, then closes what is still open. */
  async closeAll(limitMs: number): Promise<void> {
    const deadline = performance.now() + limitMs;
    const unsent = (): boolean => [...this.#connections.keys()].some((socket) => socket.writableLength > 0);
    while (unsent() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  #bind(host: string, port: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#listener.once("error", reject);
    this.#listener.listen({ host, port, backlog: 1024 }, () => {
      this.#listener.off("error", reject);
      resolve();
    });
    return promise;
  }

  #accept(socket: Socket): void {
    const connection = new ServerConnection(
      socket,
      (exchange) => this.#route(exchange),
      this.#config,
      () => this.#closing,
    );
    this.#connections.set(socket, connection);
    socket.on("close", () => this.#connections.delete(socket));
  }

  #route(exchange: Exchange): Handler {
    const { target } = exchange.request;
    if (target.startsWith("/_/")) {
      const { path } = splitTarget(target);
      if (path === "/_/health") return this.#answerHealth(exchange);
      // The classic watchdog has no such route: there it is the function's (contracts/watchdog.md §1.5).
      if (path === "/_/ready" && this.#config.mode !== "classic") return this.#answerReady(exchange);
    }
    const { maxInflight } = this.#config;
    if (maxInflight > 0 && this.#inflight >= maxInflight) return tooMany(exchange, maxInflight);
    return this.#call(exchange);
  }

  #call(exchange: Exchange): Handler {
    let handler: Handler | null = null;
    this.#inflight++;
    exchange.onOver = () => {
      if (handler?.work) void handler.work.finally(() => this.#over());
      else this.#over();
    };
    handler = this.#mode.serve(exchange);
    return handler;
  }

  #over(): void {
    this.#inflight--;
    if (this.#inflight === 0) this.#idle?.resolve();
  }

  #answerHealth(exchange: Exchange): Handler {
    if (exchange.request.method !== "GET") exchange.respond(405, "", "");
    else if (this.#health.ok) exchange.respond(200, "Content-Type: text/plain; charset=utf-8\r\n", "OK");
    else exchange.respond(503, "", "");
    return new BaseHandler();
  }

  #answerReady(exchange: Exchange): Handler {
    const { maxInflight } = this.#config;
    if (exchange.request.method !== "GET") exchange.respond(405, "", "");
    else if (!this.#health.ok || !this.#mode.ready()) exchange.respond(503, "", "");
    else exchange.respond(maxInflight > 0 && this.#inflight >= maxInflight ? 429 : 200, "", "");
    return new BaseHandler();
  }
}

function tooMany(exchange: Exchange, limit: number): Handler {
  const fields = "Content-Type: text/plain\r\nX-OpenFaaS-Internal: faas-middleware\r\n";
  exchange.respond(429, fields, `Concurrent request limit exceeded. Max concurrent requests: ${limit}\n`);
  return new BaseHandler();
}

function listenError(port: number, e: unknown): AppError {
  return new AppError("LISTEN", [`port ${port}`, systemCode(e) ?? String(e), "port"], { cause: e });
}
