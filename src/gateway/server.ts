import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { AppError } from "../base/errors.ts";
import { type Invoke, type InvokeUpgrade, mayUpgrade } from "../invoke/invoke.ts";
import { lingerAtEnd } from "../invoke/linger.ts";
import { type ConnectionLimits, Connections } from "./connections.ts";
import { type Listener, type ListenerOptions, type ListensAt, openListener, type Server } from "./listener.ts";
import { destination, type FunctionRoute, type RouteOptions } from "./route.ts";

export interface GatewayLimits extends ConnectionLimits {
  readonly keepAliveMs: number;
  readonly maxConnections: number;
}

export interface GatewayOptions extends RouteOptions {
  /** Where it listens; functions use the first one. */
  listeners: readonly ListenerOptions[];
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
  /** Of the first listener. */
  readonly port: number;
  /** Of each listener, in their order. */
  readonly addresses: readonly ListensAt[];
  /** From now on requests are answered; those that came before have waited. */
  serve(handlers: Handlers): void;
  /** Takes up limits that have changed in `options.limits`; that of a head's bytes cannot. */
  limit(): void;
  /**
   * Takes no more connections and resolves when the requests under way are done, or cut after `ms`. Callers who keep
   * their connection are told with an answer that it is the last one, unless they ask for nothing any more.
   */
  drain(ms: number): Promise<void>;
}

/**
 * Listens at once, so that a port in use is known before anything is touched and nobody is refused while napd starts;
 * answers from `serve` on. Fails with LISTEN.
 */
export async function openGateway(options: GatewayOptions): Promise<Gateway> {
  let handlers: Handlers | null = null;
  const waiting: [IncomingMessage, ServerResponse][] = [];
  const connections = new Connections(options.limits);
  const take = (req: IncomingMessage, res: ServerResponse): void => {
    if (handlers) route(req, res, handlers, options);
    else waiting.push([req, res]);
  };
  const onRequest = (req: IncomingMessage, res: ServerResponse) => connections.admit(req, res, take);
  const upgraded = new Set<Socket>();
  const onUpgrade = (req: IncomingMessage, socket: Socket, early: Buffer) => {
    if (!connections.accepts(req)) return;
    if (connections.drains) {
      connections.refuse(socket, new AppError("SHUTTING_DOWN", []));
      return;
    }
    const call = toFunction(req, options)!;
    upgraded.add(socket);
    socket.once("close", () => upgraded.delete(socket));
    handlers!.upgrade(req, socket, early, call.address, call.target);
  };
  const serverOptions = {
    ...parserOptions(options.limits),
    // only calls can change the protocol; until it is known who answers, nobody is kept waiting for that
    shouldUpgradeCallback: (req: IncomingMessage) =>
      handlers !== null && mayUpgrade(req) && toFunction(req, options) !== null,
  };
  await using up = new AsyncDisposableStack();
  up.use(connections);
  const listeners: Listener[] = [];
  for (const one of options.listeners) {
    const listener = up.use(await openListener(one, serverOptions));
    listeners.push(listener);
    const { server } = listener;
    if (one.certificate) for (const event of requestEvents) server.on(event, sayHttps);
    limitServer(server, options.limits);
    connections.watch(server);
    server.on("request", onRequest);
    // whoever reads the body says so: a call that is refused before is not asked for it
    server.on("checkContinue", onRequest);
    server.on("checkExpectation", onRequest); // refused: headFault knows only the other
    server.on("upgrade", onUpgrade);
  }
  up.defer(() => endUpgraded(upgraded));
  const addresses = listeners.map(({ address }) => address);
  const stack = up.move();
  return {
    port: addresses[0]!.port,
    addresses,
    serve(given) {
      handlers = given;
      for (const [req, res] of waiting.splice(0)) if (!res.destroyed) route(req, res, given, options);
    },
    limit() {
      for (const { server } of listeners) limitServer(server, options.limits);
    },
    async drain(ms) {
      endUpgraded(upgraded);
      await connections.drain(ms, () => listeners.forEach((listener) => void listener.refuse()));
      await stack.disposeAsync();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

const requestEvents = ["request", "checkContinue", "upgrade"];

/** Tells functions, in the header that web frameworks know, what only the end of TLS can know. */
function sayHttps({ headers, rawHeaders }: IncomingMessage): void {
  if (headers["x-forwarded-proto"] === undefined) rawHeaders.push("X-Forwarded-Proto", "https");
}

/** They have no end of their own to wait for, and the sooner their callers know, the sooner they come back. */
function endUpgraded(sockets: ReadonlySet<Socket>): void {
  for (const socket of sockets) socket.destroy();
}

function limitServer(server: Server, limits: GatewayLimits): void {
  server.maxConnections = limits.maxConnections;
  server.maxHeadersCount = limits.maxHeaders;
  server.headersTimeout = limits.headersTimeoutMs;
  server.keepAliveTimeout = limits.keepAliveMs;
}

function parserOptions({ headersTimeoutMs, maxHeaderBytes }: GatewayLimits) {
  return {
    insecureHTTPParser: false, // whatever NODE_OPTIONS say
    requireHostHeader: false, // headFault looks at it, and its answers come in their turn
    maxHeaderSize: maxHeaderBytes,
    connectionsCheckingInterval: Math.min(5000, headersTimeoutMs / 4),
    requestTimeout: 0, // the time of a call is the function's matter, and a body that stops coming ours
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
