import { splitTarget } from "./environment.ts";
import type { Exchange, Handler } from "./http1/exchange.ts";
import { ServerConnection } from "./http1/server-connection.ts";
import type { CallMetrics } from "./metrics.ts";
import { BaseHandler } from "./modes/mode.ts";
import { printProcessMetrics } from "./process-metrics.ts";
import { listen } from "./wire/network.ts";

/** The reference gives a scrape half a second each way (contracts/watchdog.md §1.7). */
const limits = { readTimeoutMs: 500, writeTimeoutMs: 500 };
const plain = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";

/** Serves /metrics and nothing else; resolves with the port. Throws AppError LISTEN. It never keeps the process. */
export async function serveMetrics(metrics: CallMetrics, port: number): Promise<number> {
  const serve = (exchange: Exchange): Handler => {
    if (splitTarget(exchange.request.target).path !== "/metrics") exchange.respond(404, plain, "404 page not found\n");
    else {
      const type = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
      exchange.respond(200, type, metrics.print() + printProcessMetrics());
    }
    return new BaseHandler();
  };
  const options = { serve, limits, closing: () => false };
  const server = await listen(port, "metrics_port", (wire) => void new ServerConnection(wire, options, () => {}));
  server.unref();
  return server.port;
}
