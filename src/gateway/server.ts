import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { AppError, messageOf, systemCode } from "../base/errors.ts";
import type { Table } from "../functions/table.ts";
import { type Invoke, type InvokeUpgrade, mayUpgrade } from "../invoke/invoke.ts";
import { type FunctionRoute, functionRoute, hostRoute } from "./route.ts";

export interface GatewayOptions {
  host: string;
  port: number;
  /** The host's address on the bridge: there, functions are also called by Host. */
  bridgeAddress: string;
  defaultNamespace: string;
  table: Table;
}

/** What answers, once there is somebody: calls of functions, and everything else. */
export interface Handlers {
  invoke: Invoke;
  upgrade: InvokeUpgrade;
  admin: (req: IncomingMessage, res: ServerResponse) => void;
}

/** Bytes of a request's header block: contracts/api.md §1.1. */
const maxHeaderBytes = 1024 * 1024;

export interface Gateway extends AsyncDisposable {
  readonly port: number;
  /** From now on requests are answered; those that came before have waited. */
  serve(handlers: Handlers): void;
  /** Refuses new connections and resolves when the requests under way are done, or cut after `ms`. */
  drain(ms: number): Promise<void>;
}

/**
 * Listens at once, so that a port in use is known before anything is touched and nobody is refused while napd starts;
 * answers from `serve` on. Fails with LISTEN.
 */
export async function openGateway(options: GatewayOptions): Promise<Gateway> {
  let handlers: Handlers | null = null;
  const waiting: [IncomingMessage, ServerResponse][] = [];
  const server = createServer(
    {
      maxHeaderSize: maxHeaderBytes,
      requestTimeout: 0,
      headersTimeout: 30_000,
      keepAliveTimeout: 65_000,
      // only calls can change the protocol; until it is known who answers, nobody is kept waiting for that
      shouldUpgradeCallback: (req) => handlers !== null && mayUpgrade(req) && toFunction(req, options) !== null,
    },
    onRequest,
  );
  function onRequest(req: IncomingMessage, res: ServerResponse): void {
    if (handlers) route(req, res, handlers, options);
    else waiting.push([req, res]);
  }
  // whoever reads the body says so: a call that is refused before is not asked for it
  server.on("checkContinue", onRequest);
  const upgraded = new Set<Socket>();
  server.on("upgrade", (req: IncomingMessage, socket: Socket, early: Buffer) => {
    const call = toFunction(req, options)!;
    upgraded.add(socket);
    socket.once("close", () => upgraded.delete(socket));
    handlers!.upgrade(req, socket, early, call.address, call.target);
  });
  await listen(server, options);
  const { port } = server.address() as { port: number };
  return {
    port,
    serve(given) {
      handlers = given;
      for (const [req, res] of waiting.splice(0)) if (!res.destroyed) route(req, res, given, options);
    },
    drain: (ms) => drain(server, upgraded, ms),
    [Symbol.asyncDispose]: () => drain(server, upgraded, 0),
  };
}

/** The only place that looks at a path to tell calls from the API. */
function toFunction(req: IncomingMessage, options: GatewayOptions): FunctionRoute | null {
  const url = req.url ?? "/";
  return (
    functionRoute(url) ??
    (req.socket.localAddress === options.bridgeAddress
      ? hostRoute(req.headers.host ?? "", url, options.table, options.defaultNamespace)
      : null)
  );
}

function route(req: IncomingMessage, res: ServerResponse, handlers: Handlers, options: GatewayOptions): void {
  const call = toFunction(req, options);
  if (call) {
    handlers.invoke(req, res, call.address, call.target);
    return;
  }
  if (req.headers.expect !== undefined && req.httpVersionMinor > 0) res.writeContinue();
  handlers.admin(req, res);
}

function listen(server: Server, { host, port }: GatewayOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const why = systemCode(cause) === "EADDRINUSE" ? "the port is in use" : messageOf(cause);
      reject(new AppError("LISTEN", [`${host}:${port}`, why, "gateway.listen"], { cause }));
    });
    server.listen({ host, port, backlog: 4096 }, resolve);
  });
}

async function drain(server: Server, upgraded: ReadonlySet<Socket>, ms: number): Promise<void> {
  // these have no end of their own to wait for, and the sooner their callers know, the sooner they come back
  for (const socket of upgraded) socket.destroy();
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const cut = setTimeout(() => server.closeAllConnections(), ms);
  await closed;
  clearTimeout(cut);
}
