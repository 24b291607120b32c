import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { splitAddress } from "../base/names.ts";
import { parseDeployment } from "../functions/spec.ts";
import type { FunctionStatus } from "../functions/status.ts";
import type { AddResource, ApiOptions } from "./api.ts";
import { isTrue, nameInPath, namespaceOf, parseBody, queryOf } from "./request.ts";

const deletion = z.object({ functionName: z.string().min(1), namespace: z.string().nullish() });
const scaling = z.object({
  serviceName: z.string().nullish(),
  // any uint64 may be asked for, and is brought down to the function's maximum
  replicas: z.number().refine((n) => Number.isInteger(n) && n >= 0, "must be a whole number, zero or above"),
  namespace: z.string().nullish(),
});

/** Functions: contracts/api.md §2.2 and §2.3. */
export function functionRoutes(add: AddResource, options: ApiOptions): void {
  const { functions, defaultNamespace, upsert, functionLabel, usage, cron } = options;

  const deploy = (kind: "create" | "update") => async (request: FastifyRequest, reply: FastifyReply) => {
    const spec = parseDeployment(request.body, defaultNamespace, queryOf(request, "namespace"));
    const outcome = await functions.deploy(spec, upsert ? "upsert" : kind);
    if (outcome === "continues") reply.header("X-Napd-Rollout", "continues");
    return reply.code(202).send();
  };

  add("/system/functions", {
    GET: async (request) => functions.list(namespaceOf(request, undefined, defaultNamespace)).map(shown),
    POST: deploy("create"),
    PUT: deploy("update"),
    DELETE: async (request, reply) => {
      const { functionName, namespace } = parseBody(deletion, request.body);
      await functions.remove({ name: functionName, namespace: namespaceOf(request, namespace, defaultNamespace) });
      return reply.code(202).send();
    },
  });

  add(`/system/function/${nameInPath}`, {
    GET: async (request, reply) => {
      const id = target(request, undefined);
      const status = functions.get(id);
      if (!status) return reply.code(404).send(); // an empty body: §2.2
      const used = isTrue(queryOf(request, "usage")) && (await usage(id));
      return { ...shown(status), ...(used && { usage: used }) };
    },
  });

  add(`/system/scale-function/${nameInPath}`, {
    POST: async (request, reply) => {
      const { replicas, namespace } = parseBody(scaling, request.body);
      await functions.scale(target(request, namespace), replicas);
      return reply.code(202).send();
    },
  });

  /** The path's name wins; a namespace in it counts unless body or query give one. */
  function target(request: FastifyRequest, bodyNamespace: string | null | undefined) {
    const { name } = request.params as { name: string };
    const id = splitAddress(name, defaultNamespace);
    return { name: id.name, namespace: namespaceOf(request, bodyNamespace, id.namespace) };
  }

  function shown(status: FunctionStatus): FunctionStatus & { warnings?: readonly string[] } {
    const warnings = cron.problems(status);
    const labels = functionLabel ? { ...status.labels, faas_function: status.name } : status.labels;
    return { ...status, ...(labels && { labels }), ...(warnings.length > 0 && { warnings }) };
  }
}
