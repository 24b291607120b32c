import type { Authorizer } from "./auth.ts";
import type { Config } from "./config.ts";
import { splitTarget } from "./environment.ts";
import type { Health } from "./health.ts";
import type { ConnectionOptions, Exchange, Handler } from "./http1/exchange.ts";
import { ServerConnection } from "./http1/server-connection.ts";
import { CallMetrics } from "./metrics.ts";
import { BaseHandler, type Mode } from "./modes/mode.ts";
import { Tidier } from "./tidy.ts";
import { listen } from "./wire/network.ts";
import type { Wire, WireServer } from "./wire/wire.ts";

/** Accepts connections, answers the reserved routes itself, limits and counts what goes to the function. */
export class Server {
  readonly #config: Config;
  readonly #mode: Mode;
  readonly #health: Health;
  readonly #connections = new Map<Wire, ServerConnection>();
  readonly #options: ConnectionOptions;
  #listener: WireServer | null = null;
  readonly metrics = new CallMetrics();
  /** Who may call the function; null: everybody. */
  authorizer: Authorizer | null = null;
  readonly #tidier = new Tidier();
  #inflight = 0;
  #closing = false;
  #idle: PromiseWithResolvers<void> | null = null;

  constructor(config: Config, mode: Mode, health: Health) {
    this.#config = config;
    this.#mode = mode;
    this.#health = health;
    this.#options = {
      serve: (exchange) => this.#route(exchange),
      limits: config,
      closing: () => this.#closing,
    };
  }

  /** Function calls under way. */
  get inflight(): number {
    return this.#inflight;
  }

  /** Listens on every interface; resolves with the port. Throws AppError LISTEN. */
  async listen(): Promise<number> {
    this.#listener = await listen(this.#config.port, "port", (wire) => this.#accept(wire));
    return this.#listener.port;
  }

  /** From now on every answer announces the end of its connection. */
  announceClose(): void {
    this.#closing = true;
  }

  /** Stops listening, closes idle connections, and waits for the calls under way, at most `limitMs`. */
  async drain(limitMs: number): Promise<void> {
    this.#closing = true;
    this.#listener?.stop();
    for (const connection of this.#connections.values()) connection.closeIdle();
    if (this.#inflight === 0) return;
    this.#idle = Promise.withResolvers();
    await Promise.race([this.#idle.promise, new Promise((resolve) => setTimeout(resolve, limitMs))]);
  }

  /** Waits until what has been answered has left, at most `limitMs`, then closes what is still open. */
  async closeAll(limitMs: number): Promise<void> {
    const deadline = performance.now() + limitMs;
    const unsent = (): boolean => [...this.#connections.keys()].some((wire) => wire.unsent > 0);
    while (unsent() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
    for (const wire of this.#connections.keys()) wire.destroy();
  }

  #accept(wire: Wire): void {
    this.#connections.set(wire, new ServerConnection(wire, this.#options, () => this.#connections.delete(wire)));
  }

  #route(exchange: Exchange): Handler {
    const { target } = exchange.request;
    if (target.startsWith("/_/") || !target.startsWith("/")) {
      const { path } = splitTarget(target);
      if (path === "/_/health") return this.#answerHealth(exchange);
      // The classic watchdog has no such route: there it is the function's (contracts/watchdog.md §1.5).
      if (path === "/_/ready" && this.#config.mode !== "classic") return this.#answerReady(exchange);
    }
    return this.#count(exchange);
  }

  /** Calls count in the metrics, whoever answers them (contracts/watchdog.md §1.7). */
  #count(exchange: Exchange): Handler {
    const { method } = exchange.request;
    const { maxInflight } = this.#config;
    this.metrics.inflight++;
    const counted = (): void => {
      this.metrics.inflight--;
      this.metrics.record(method, exchange.status, (performance.now() - exchange.startedAt) / 1000);
    };
    exchange.onOver = counted;
    if (maxInflight > 0 && this.#inflight >= maxInflight) return tooMany(exchange, maxInflight);
    if (this.authorizer && !this.authorizer.admit(exchange)) return new BaseHandler();
    return this.#call(exchange, counted);
  }

  #call(exchange: Exchange, over: () => void): Handler {
    let handler: Handler | null = null;
    this.#inflight++;
    exchange.onOver = () => {
      over();
      if (handler?.work) void handler.work.finally(() => this.#over());
      else this.#over();
    };
    handler = this.#mode.serve(exchange);
    return handler;
  }

  #over(): void {
    this.#inflight--;
    if (this.#inflight === 0) this.#idle?.resolve();
    this.#tidier.over(this.#inflight === 0);
  }

  #answerHealth(exchange: Exchange): Handler {
    if (exchange.request.method !== "GET") exchange.respond(405, "", "");
    else if (this.#health.ok) exchange.respond(200, "Content-Type: text/plain; charset=utf-8\r\n", "OK");
    else exchange.respond(503, "", "");
    return new BaseHandler();
  }

  #answerReady(exchange: Exchange): Handler {
    const { maxInflight, readyPath } = this.#config;
    const { method, bodyLength } = exchange.request;
    if (method !== "GET") exchange.respond(405, "", "");
    else if (!this.#health.ok || !this.#mode.ready()) exchange.respond(503, "", "");
    else if (maxInflight > 0 && this.#inflight >= maxInflight) exchange.respond(429, "", "");
    else if (readyPath === "" || bodyLength !== 0) exchange.respond(200, "", "");
    else return this.#askFunction(exchange, readyPath);
    return new BaseHandler();
  }

  /** `ready_path`: the function says whether it is ready, outside of limits and metrics (contracts/watchdog.md §1.5). */
  #askFunction(exchange: Exchange, path: string): Handler {
    // Nobody has to show a token here, so nothing of the caller's goes along where tokens are asked for (§5, 15).
    const fields = this.authorizer ? ["Host", exchange.request.host] : exchange.request.fields;
    exchange.request = { ...exchange.request, target: path, fields, upgrade: "" };
    return this.#mode.serve(exchange);
  }
}

function tooMany(exchange: Exchange, limit: number): Handler {
  const fields = "Content-Type: text/plain\r\nX-OpenFaaS-Internal: faas-middleware\r\n";
  exchange.respond(429, fields, `Concurrent request limit exceeded. Max concurrent requests: ${limit}\n`);
  return new BaseHandler();
}
