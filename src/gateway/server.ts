import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { AppError, messageOf, systemCode } from "../base/errors.ts";
import { type Invoke, type InvokeUpgrade, mayUpgrade } from "../invoke/invoke.ts";
import { lingerAtEnd } from "../invoke/linger.ts";
import { type ConnectionLimits, Connections } from "./connections.ts";
import { destination, type FunctionRoute, type RouteOptions } from "./route.ts";

export interface GatewayLimits extends ConnectionLimits {
  readonly keepAliveMs: number;
  readonly maxConnections: number;
}

export interface GatewayOptions extends RouteOptions {
  host: string;
  port: number;
  limits: GatewayLimits;
}

/** What answers, once there is somebody: calls of functions, and everything else. */
export interface Handlers {
  invoke: Invoke;
  upgrade: InvokeUpgrade;
  /** Keeps a call to be made later. */
  later: Invoke;
  admin: (req: IncomingMessage, res: ServerResponse) => void;
}

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
  const server = createServer({
    ...parserOptions(options.limits),
    // only calls can change the protocol; until it is known who answers, nobody is kept waiting for that
    shouldUpgradeCallback: (req) => handlers !== null && mayUpgrade(req) && toFunction(req, options) !== null,
  });
  server.maxConnections = options.limits.maxConnections;
  server.maxHeadersCount = options.limits.maxHeaders;
  const connections = new Connections(server, options.limits);
  const take = (req: IncomingMessage, res: ServerResponse): void => {
    if (handlers) route(req, res, handlers, options);
    else waiting.push([req, res]);
  };
  const onRequest = (req: IncomingMessage, res: ServerResponse) => connections.admit(req, res, take);
  server.on("request", onRequest);
  // whoever reads the body says so: a call that is refused before is not asked for it
  server.on("checkContinue", onRequest);
  server.on("checkExpectation", onRequest); // refused: headFault knows only the other
  const upgraded = new Set<Socket>();
  server.on("upgrade", (req: IncomingMessage, socket: Socket, early: Buffer) => {
    if (!connections.accepts(req)) return;
    const call = toFunction(req, options)!;
    upgraded.add(socket);
    socket.once("close", () => upgraded.delete(socket));
    handlers!.upgrade(req, socket, early, call.address, call.target);
  });
  await listen(server, options);
  const { port } = server.address() as { port: number };
  const end = async (ms: number) => {
    await drain(server, upgraded, ms);
    connections[Symbol.dispose]();
  };
  return {
    port,
    serve(given) {
      handlers = given;
      for (const [req, res] of waiting.splice(0)) if (!res.destroyed) route(req, res, given, options);
    },
    drain: end,
    [Symbol.asyncDispose]: () => end(0),
  };
}

function parserOptions({ headersTimeoutMs, keepAliveMs, maxHeaderBytes }: GatewayLimits) {
  return {
    insecureHTTPParser: false, // whatever NODE_OPTIONS say
    requireHostHeader: false, // headFault looks at it, and its answers come in their turn
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: headersTimeoutMs,
    connectionsCheckingInterval: Math.min(5000, headersTimeoutMs / 4),
    requestTimeout: 0, // the time of a call is the function's matter, and a body that stops coming ours
    keepAliveTimeout: keepAliveMs,
    keepAlive: true, // a peer that vanished without a word is noticed by the kernel
    keepAliveInitialDelay: 60_000,
  };
}

/** Whom a request calls, if it is a call. */
function toFunction(req: IncomingMessage, options: GatewayOptions): FunctionRoute | null {
  const to = destination(req, options);
  return typeof to === "string" || "later" in to ? null : to;
}

function route(req: IncomingMessage, res: ServerResponse, handlers: Handlers, options: GatewayOptions): void {
  const to = destination(req, options);
  if (to === "nowhere") notFound(res);
  else if (to !== "api" && "later" in to) handlers.later(req, res, to.later.address, to.later.target);
  else if (to !== "api") handlers.invoke(req, res, to.address, to.target);
  else {
    if (req.headers.expect !== undefined && req.httpVersionMinor > 0) res.writeContinue();
    lingerAtEnd(req.socket); // it may be refused in the middle of its body
    handlers.admin(req, res);
  }
}

/** As the API answers: contracts/api.md §1.1. */
function notFound(res: ServerResponse): void {
  const { status, message } = new AppError("ROUTE_NOT_FOUND", []);
  res.writeHead(status, { "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff" });
  res.end(`${message}\n`);
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
