import type { IncomingMessage } from "node:http";
import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { AppError, messageOf } from "../base/errors.ts";
import { parseJson } from "../base/json.ts";
import type { ImageInfo } from "../functions/backend.ts";
import type { AddResource, ApiOptions } from "./api.ts";
import { compositionOf } from "./composition.ts";
import { maxBodyBytes } from "./errors.ts";
import { namespaceOf, parseBody, queryOf } from "./request.ts";

const removal = z.object({ name: z.string().nullish(), namespace: z.string().nullish() });

/** Images: ours, OpenFaaS has none of this. Bodies come as streams, because archives do not fit into memory. */
export function imageRoutes(add: AddResource, { images, defaultNamespace, namespaces }: ApiOptions): void {
  add("/system/images", {
    GET: async (request) => (await images.list(checked(request, undefined))).map(toJson),

    POST: async (request, reply) => {
      const namespace = checked(request, undefined);
      const stream = bodyOf(request);
      const length = request.headers["content-length"];
      const size = length === undefined ? undefined : Number(length);
      // the iterator alone would destroy the connection when the import gives up, and nobody would hear why
      const body: AsyncIterable<Buffer> | undefined = stream?.iterator({ destroyOnReturn: false });
      const name = queryOf(request, "name") || undefined;
      const base = queryOf(request, "base");
      using left = whenLeft(request);
      const work = async () => {
        if (base)
          return [await images.compose(namespace, { ...compositionOf(request, base, body), size }, left.signal)];
        if (body) return images.import(namespace, { body, size, name }, left.signal);
        throw new AppError("BAD_REQUEST", ["the request has no body; send an image archive, OCI or docker"]);
      };
      const made = await closing(reply, stream, namespaces.occupied(namespace, work));
      return reply.code(201).send(made.map(toJson));
    },

    DELETE: async (request, reply) => {
      const body = parseBody(removal, (await readJson(request)) ?? {});
      const name = body.name || queryOf(request, "name");
      if (!name) throw new AppError("BAD_JSON", ["name: say which image, here or in the query"]);
      await images.remove(checked(request, body.namespace), name);
      return reply.code(202).send();
    },
  });

  add("/system/images/pulls", {
    GET: async (request) =>
      images.pulls(checked(request, undefined)).map(({ progress, ...image }) => ({ ...image, ...progress })),
  });

  add("/system/images/prune", {
    POST: async (request) => {
      const given = queryOf(request, "namespace");
      return images.prune(given ? [checked(request, undefined)] : namespaces.list());
    },
  });

  function checked(request: FastifyRequest, inBody: string | null | undefined): string {
    const namespace = namespaceOf(request, inBody, defaultNamespace);
    if (!namespaces.list().includes(namespace)) throw new AppError("NAMESPACE_NOT_FOUND", [namespace]);
    return namespace;
  }
}

function toJson({ createdAt, usedAt, ...image }: ImageInfo) {
  return { ...image, createdAt: new Date(createdAt).toISOString(), usedAt: new Date(usedAt).toISOString() };
}

function bodyOf(request: FastifyRequest): IncomingMessage | undefined {
  return request.body as IncomingMessage | undefined;
}

/** Aborts when the client is gone before it has its answer. */
function whenLeft({ raw }: FastifyRequest): { signal: AbortSignal } & Disposable {
  const left = new AbortController();
  const onClose = () => left.abort(gone());
  raw.socket.once("close", onClose);
  return { signal: left.signal, [Symbol.dispose]: () => raw.socket.off("close", onClose) };
}

function gone(): AppError {
  return new AppError("BAD_REQUEST", ["the client left before the end of the upload"]);
}

/** A refusal in the middle of a body ends the connection: reading gigabytes that nobody wants would keep it busy. */
async function closing<T>(reply: FastifyReply, body: IncomingMessage | undefined, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (e) {
    if (!body) throw e;
    if (!body.complete && body.destroyed) throw gone();
    if (!body.complete) reply.header("Connection", "close");
    throw e;
  }
}

/** A small body. Fails with BODY_TOO_LARGE or BAD_JSON; undefined when there is none. */
async function readJson(request: FastifyRequest): Promise<unknown> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of bodyOf(request) ?? []) {
    size += piece.length;
    if (size > maxBodyBytes) throw new AppError("BODY_TOO_LARGE", [maxBodyBytes]);
    pieces.push(piece);
  }
  if (size === 0) return undefined;
  try {
    return parseJson(Buffer.concat(pieces));
  } catch (e) {
    throw new AppError("BAD_JSON", [messageOf(e)]);
  }
}
