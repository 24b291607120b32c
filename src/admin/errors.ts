import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { AppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";

/** The one place where an error becomes an answer of the API: plain text with a newline, contracts/api.md §1.1. */
export function sendError(reply: FastifyReply, error: AppError): FastifyReply {
  if (error.code === "UNAUTHORIZED") {
    // without a newline: contracts/api.md §1.3
    return reply
      .code(401)
      .header("WWW-Authenticate", 'Basic realm="Restricted"')
      .type("text/plain; charset=utf-8")
      .send(error.message);
  }
  if (error.code === "METHOD_NOT_ALLOWED") return reply.code(405).send();
  return reply
    .code(error.status)
    .header("X-Content-Type-Options", "nosniff")
    .type("text/plain; charset=utf-8")
    .send(`${error.message}\n`);
}

/** For fastify's setErrorHandler: what is not of our catalogue is a bad request that fastify found, or a bug. */
export function errorHandler(log: Logger) {
  return (error: FastifyError | AppError | Error, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    if (error instanceof AppError) {
      if (error.status >= 500)
        log.warn({ method: request.method, path: request.url, err: error.message }, "request failed");
      return sendError(reply, error);
    }
    const status = "statusCode" in error ? error.statusCode : undefined;
    if (status === 413) return sendError(reply, new AppError("BODY_TOO_LARGE", [maxBodyBytes]));
    if (status !== undefined && status >= 400 && status < 500)
      return sendError(reply, new AppError("BAD_REQUEST", [error.message]));
    log.error(
      { method: request.method, path: request.url, err: messageOf(error), stack: error.stack },
      "unexpected error",
    );
    return sendError(reply, new AppError("INTERNAL", [messageOf(error)]));
  };
}

/** For what the router itself refuses: a path that cannot be decoded, or a name that no name can be as long as. */
export function frameworkError(error: FastifyError, _request: FastifyRequest, reply: FastifyReply): void {
  const isTooLong = error.code === "FST_ERR_MAX_PARAM_LENGTH";
  sendError(reply, isTooLong ? new AppError("ROUTE_NOT_FOUND", []) : new AppError("BAD_REQUEST", [error.message]));
}

/** Bytes of a body on /system routes. */
export const maxBodyBytes = 4 * 1024 * 1024;
