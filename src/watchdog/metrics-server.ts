import type { Socket } from "node:net";
import { splitTarget } from "./environment.ts";
import { type Exchange, type Handler, ServerConnection } from "./http1/server-connection.ts";
import { createListener, listenOnAll } from "./listen.ts";
import type { CallMetrics } from "./metrics.ts";
import { BaseHandler } from "./modes/mode.ts";
import { printProcessMetrics } from "./process-metrics.ts";

/** The reference gives a scrape half a second each way (contracts/watchdog.md §1.7). */
const limits = { readTimeoutMs: 500, writeTimeoutMs: 500 };
const plain = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";

/** Serves /metrics and nothing else; resolves with the port. Throws AppError LISTEN. It never keeps the process. */
export function serveMetrics(metrics: CallMetrics, port: number): Promise<number> {
  const answer = (exchange: Exchange): Handler => {
    if (splitTarget(exchange.request.target).path !== "/metrics") exchange.respond(404, plain, "404 page not found\n");
    else {
      const type = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
      exchange.respond(200, type, metrics.print() + printProcessMetrics());
    }
    return new BaseHandler();
  };
  const accept = (socket: Socket): void => void new ServerConnection(socket, answer, limits, () => false);
  return listenOnAll(createListener(accept).unref(), port, "metrics_port");
}
