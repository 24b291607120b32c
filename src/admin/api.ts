import { type IncomingMessage, METHODS, type ServerResponse } from "node:http";
import Fastify, { type FastifyInstance, type HTTPMethods, type RouteHandlerMethod } from "fastify";
import type { Clock } from "../base/clock.ts";
import { AppError, messageOf } from "../base/errors.ts";
import { parseJson } from "../base/json.ts";
import type { Logger } from "../base/log.ts";
import type { FunctionId } from "../base/names.ts";
import type { BackendImages } from "../functions/backend.ts";
import type { Functions } from "../functions/functions.ts";
import type { Namespaces } from "../functions/namespaces.ts";
import type { Secrets } from "../functions/secrets.ts";
import type { FunctionUsage } from "../functions/usage.ts";
import type { CountRequest } from "../metrics/requests.ts";
import type { Credentials } from "../store/credentials.ts";
import type { Cron } from "../trigger/cron.ts";
import { alertRoutes } from "./alert.ts";
import { authenticator } from "./auth.ts";
import { cronRoutes } from "./cron.ts";
import { errorHandler, frameworkError, maxBodyBytes, sendError } from "./errors.ts";
import { functionRoutes } from "./functions.ts";
import { imageRoutes } from "./images.ts";
import { type InfoOptions, infoRoutes } from "./info.ts";
import { logRoutes } from "./logs.ts";
import { namespaceRoutes } from "./namespaces.ts";
import { cleanTarget } from "./paths.ts";
import { type QueueAdmin, queueRoutes } from "./queue.ts";
import { type QueueDepths, queueStatsRoutes } from "./queue-stats.ts";
import { secretRoutes } from "./secrets.ts";

export interface ApiOptions extends InfoOptions {
  functions: Functions;
  images: BackendImages;
  secrets: Secrets;
  namespaces: Namespaces;
  queue: QueueAdmin & QueueDepths;
  cron: Pick<Cron, "list" | "run" | "problems">;
  credentials: Credentials;
  defaultNamespace: string;
  /** Whether PUT and POST of a function both make or update it. */
  upsert: boolean;
  /** Whether functions are shown with the label `faas_function`. */
  functionLabel: boolean;
  /** What a function uses of the machine. */
  usage: (id: FunctionId) => Promise<FunctionUsage>;
  countRequest: CountRequest;
  /** Aborts when napd stops: answers that would go on for ever end. */
  stopping: AbortSignal;
  clock: Clock;
  log: Logger;
}

/** Handlers of one path by method; every other method is answered with 405. */
export type Resource = Partial<Record<"GET" | "HEAD" | "POST" | "PUT" | "DELETE", RouteHandlerMethod>>;

/** Adds a path to the API. */
export type AddResource = (path: string, resource: Resource) => void;

/** The API of §1.2 as a request listener: /system/* behind the password, /healthz open, 404 for the rest. */
export async function openApi(options: ApiOptions): Promise<(req: IncomingMessage, res: ServerResponse) => void> {
  const app = Fastify({
    exposeHeadRoutes: false,
    bodyLimit: maxBodyBytes,
    routerOptions: { maxParamLength: 255 },
    frameworkErrors: frameworkError,
  });
  for (const method of METHODS)
    if (!app.supportedMethods.includes(method)) app.addHttpMethod(method, { hasBody: true });
  takeAnyBodyAsJson(app);
  app.setErrorHandler(errorHandler(options.log));
  app.setNotFoundHandler((_request, reply) => sendError(reply, new AppError("ROUTE_NOT_FOUND", [])));
  // before a body is read, which may be none that can be read
  app.addHook("onRequest", async (request) => {
    if (request.is404) throw new AppError("ROUTE_NOT_FOUND", []);
  });

  // by the route's pattern without its parameters, so that no caller can make new series (contracts/api.md §2.10)
  app.addHook("onResponse", async (request, reply) => {
    const path = request.routeOptions.url?.replace(/\/:.*$/, "") ?? "other";
    options.countRequest(request.method, path, reply.statusCode, reply.elapsedTime / 1000);
  });

  const open = adder(app);
  open("/healthz", {
    GET: (_request, reply) => reply.code(200).send(),
    HEAD: (_request, reply) => reply.code(200).send(),
  });
  open("/", { GET: (_request, reply) => reply.redirect("/ui/", 307) });

  const authenticate = authenticator(options.credentials);
  await app.register(async (system) => {
    // before the body is read: who has no password can make us do nothing
    system.addHook("onRequest", async (request) => authenticate(request.headers.authorization));
    const add = adder(system);
    functionRoutes(add, options);
    secretRoutes(add, options);
    namespaceRoutes(add, options);
    infoRoutes(add, options);
    alertRoutes(add, options);
    cronRoutes(add, options);
    logRoutes(add, options);
    queueRoutes(add, options);
    queueStatsRoutes(add, options);
    await system.register(async (streams) => {
      takeAnyBodyAsStream(streams);
      imageRoutes(adder(streams), options);
    });
  });
  await app.ready();
  return (req, res) => {
    const clean = cleanTarget(req.url ?? "/");
    if (clean !== null) return void res.writeHead(301, { Location: clean }).end();
    delete req.headers["content-type"]; // never looked at (§1.1); fastify would refuse one that is malformed
    app.routing(req, res);
  };
}

function adder(app: FastifyInstance): AddResource {
  return (url, resource) => {
    const allowed = Object.keys(resource) as HTTPMethods[];
    for (const method of allowed) app.route({ method, url, handler: resource[method as keyof Resource]! });
    const refuse = () => {
      throw new AppError("METHOD_NOT_ALLOWED", []);
    };
    const others = app.supportedMethods.filter((m) => !allowed.includes(m as HTTPMethods)) as HTTPMethods[];
    app.route({ method: others, url, onRequest: async () => refuse(), handler: refuse });
  };
}

/** The body is a stream for the handler to read: for what does not fit into memory. */
function takeAnyBodyAsStream(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_request, payload, done) => done(null, payload));
}

/** An empty body is undefined. */
function takeAnyBodyAsJson(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body: Buffer, done) => {
    if (body.length === 0) return done(null, undefined);
    try {
      done(null, parseJson(body));
    } catch (e) {
      done(new AppError("BAD_JSON", [messageOf(e)]));
    }
  });
}
