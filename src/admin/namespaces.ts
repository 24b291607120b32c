import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { AppError } from "../base/errors.ts";
import type { Namespace } from "../functions/namespaces.ts";
import { stringMap } from "../functions/spec.ts";
import type { AddResource, ApiOptions } from "./api.ts";
import { nameInPath, parseBody } from "./request.ts";

const description = z.object({ name: z.string().nullish(), labels: stringMap, annotations: stringMap });

/** Namespaces: contracts/api.md §2.6. */
export function namespaceRoutes(add: AddResource, { namespaces }: ApiOptions): void {
  add("/system/namespaces", { GET: async () => namespaces.list() });

  // the plural is what OpenFaaS' documentation shows
  for (const path of [`/system/namespace/${nameInPath}`, `/system/namespaces/${nameInPath}`])
    add(path, {
      GET: async (request) => shown(namespaces.get(inPath(request))),
      POST: async (request, reply) => {
        await namespaces.create(marked(read(request)));
        return reply.code(201).send();
      },
      PUT: async (request, reply) => {
        await namespaces.update(marked(ofPath(request)));
        return reply.code(202).send();
      },
      DELETE: async (request, reply) => {
        await namespaces.remove(ofPath(request).name);
        return reply.code(202).send();
      },
    });
}

function inPath(request: FastifyRequest): string {
  const { name } = request.params as { name: string };
  if (name === "") throw new AppError("BAD_REQUEST", ["the path lacks the name of a namespace"]);
  return name;
}

function read(request: FastifyRequest): Namespace {
  const { name, labels, annotations } = parseBody(description, request.body);
  return { name: name ?? "", labels: labels ?? {}, annotations: annotations ?? {} };
}

/** What changes or removes one names it twice. */
function ofPath(request: FastifyRequest): Namespace {
  const name = inPath(request);
  const body = read(request);
  if (body.name !== name)
    throw new AppError("BAD_REQUEST", [`name: "${body.name}" is not the namespace that the path names, "${name}"`]);
  return body;
}

/** Some clients mark namespaces of theirs with a label, others with an annotation. */
function marked(namespace: Namespace): Namespace {
  const { labels, annotations } = namespace;
  const marks = [labels, annotations].map((map) => (Object.hasOwn(map, "openfaas") ? map.openfaas : undefined));
  if (!marks.some((mark) => mark === "1" || mark === "true"))
    throw new AppError("BAD_REQUEST", ['labels: a namespace for functions has the label or annotation openfaas, "1"']);
  return namespace;
}

/** Without what is empty. */
function shown({ name, labels, annotations }: Namespace): Partial<Namespace> {
  const filled = (map: object) => Object.keys(map).length > 0;
  return { name, ...(filled(labels) && { labels }), ...(filled(annotations) && { annotations }) };
}
