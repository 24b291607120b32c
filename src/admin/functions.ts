import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { splitAddress } from "../base/names.ts";
import { parseDeployment } from "../functions/spec.ts";
import type { AddResource, ApiOptions } from "./api.ts";
import { isTruthy, namespaceOf, parseBody } from "./request.ts";

const deletion = z.object({ functionName: z.string(), namespace: z.string().nullish() });
const scaling = z.object({
  serviceName: z.string().nullish(),
  replicas: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  namespace: z.string().nullish(),
});

/** Functions: contracts/api.md §2.2 and §2.3. */
export function functionRoutes(add: AddResource, { functions, usage, defaultNamespace }: ApiOptions): void {
  const deploy = (kind: "create" | "update") => async (request: FastifyRequest, reply: FastifyReply) => {
    const spec = parseDeployment(request.body, defaultNamespace);
    const outcome = await functions.deploy(spec, kind);
    if (outcome === "continues") reply.header("X-Napd-Rollout", "continues");
    return reply.code(202).send();
  };

  add("/system/functions", {
    GET: async (request) => functions.list(namespaceOf(request, undefined, defaultNamespace)),
    POST: deploy("create"),
    PUT: deploy("update"),
    DELETE: async (request, reply) => {
      const { functionName, namespace } = parseBody(deletion, request.body);
      await functions.remove({ name: functionName, namespace: namespaceOf(request, namespace, defaultNamespace) });
      return reply.code(202).send();
    },
  });

  add("/system/function/:name", {
    GET: async (request, reply) => {
      const id = target(request, undefined);
      const status = functions.get(id);
      if (!status) return reply.code(404).send(); // an empty body: §2.2
      return isTruthy(request, "usage") ? { ...status, usage: await usage(id) } : status;
    },
  });

  add("/system/scale-function/:name", {
    POST: async (request, reply) => {
      const { replicas, namespace } = parseBody(scaling, request.body);
      const id = target(request, namespace);
      await functions.scale(id, replicas);
      return reply.code(202).send();
    },
  });

  /** The path's name wins; a namespace in it counts unless body or query give one. */
  function target(request: FastifyRequest, bodyNamespace: string | null | undefined) {
    const { name } = request.params as { name: string };
    const id = splitAddress(name, defaultNamespace);
    return { name: id.name, namespace: namespaceOf(request, bodyNamespace, id.namespace) };
  }
}
