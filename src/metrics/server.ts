import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Registry } from "prom-client";
import { AppError, messageOf, systemCode } from "../base/errors.ts";

export interface MetricsServer extends AsyncDisposable {
  readonly port: number;
}

/**
 * The listener for scrapers, apart from the gateway's: `/metrics` in Prometheus' text format and `/healthz`, without
 * password (contracts/api.md §1.2). Port 0 takes any. Fails with LISTEN.
 */
export async function openMetricsServer(
  registry: Registry,
  { host, port }: { host: string; port: number },
): Promise<MetricsServer> {
  const server = createServer({ requestTimeout: 5000 }, (req, res) => {
    answer(registry, req, res).catch((e) => send(res, 500, `${messageOf(e)}\n`));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      const why = systemCode(cause) === "EADDRINUSE" ? "the port is in use" : messageOf(cause);
      reject(new AppError("LISTEN", [`${host}:${port}`, why, "metrics.listen"], { cause }));
    });
    server.listen({ host, port }, resolve);
  });
  return {
    port: (server.address() as { port: number }).port,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(registry: Registry, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const path = req.url?.split("?", 1)[0];
  if (path === "/metrics") send(res, 200, await registry.metrics(), registry.contentType);
  else if (path !== "/healthz") send(res, 404, "404 page not found\n");
  else if (req.method === "GET") send(res, 200, "OK");
  else send(res, 405, "");
}

function send(res: ServerResponse, status: number, body: string, type = "text/plain; charset=utf-8"): void {
  res.writeHead(status, { "Content-Type": type, "Content-Length": Buffer.byteLength(body) }).end(body);
}
