import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { AppError } from "../base/errors.ts";
import { isSecretName } from "../base/names.ts";
import type { AddResource, ApiOptions } from "./api.ts";
import { namespaceOf, parseBody } from "./request.ts";

const secret = z.object({
  name: z.string(),
  namespace: z.string().nullish(),
  value: z.string().nullish(),
  rawValue: z.string().nullish(),
});

/** Secrets: contracts/api.md §2.5. Values go in and never come out. */
export function secretRoutes(add: AddResource, { secrets, defaultNamespace, namespaces }: ApiOptions): void {
  add("/system/secrets", {
    GET: async (request) => {
      const namespace = checkedNamespace(request, undefined);
      return (await secrets.list(namespace)).map((name) => ({ name, namespace }));
    },
    POST: async (request, reply) => {
      const { name, namespace, value } = read(request);
      if (await secrets.read(namespace, name)) throw new AppError("SECRET_EXISTS", [name, namespace]);
      await secrets.put(namespace, name, value);
      return reply.code(202).send();
    },
    PUT: async (request, reply) => {
      const { name, namespace, value } = read(request);
      if (!(await secrets.read(namespace, name))) throw new AppError("SECRET_NOT_FOUND", [name, namespace]);
      await secrets.put(namespace, name, value);
      return reply.code(202).send();
    },
    DELETE: async (request, reply) => {
      const { name, namespace } = read(request);
      if (!(await secrets.delete(namespace, name))) throw new AppError("SECRET_NOT_FOUND", [name, namespace]);
      return reply.code(202).send();
    },
  });

  /** `rawValue` (base64) wins over `value` when it is not empty. */
  function read(request: FastifyRequest): { name: string; namespace: string; value: Buffer } {
    const { name, namespace, value, rawValue } = parseBody(secret, request.body);
    if (!isSecretName(name))
      throw new AppError("BAD_REQUEST", [
        `"${name}" cannot be the name of a secret: letters, digits, hyphens, underscores and dots, at most 253`,
      ]);
    return {
      name,
      namespace: checkedNamespace(request, namespace),
      value: rawValue ? Buffer.from(rawValue, "base64") : Buffer.from(value ?? "", "utf8"),
    };
  }

  function checkedNamespace(request: FastifyRequest, inBody: string | null | undefined): string {
    const namespace = namespaceOf(request, inBody, defaultNamespace);
    if (!namespaces().includes(namespace)) throw new AppError("NAMESPACE_NOT_FOUND", [namespace]);
    return namespace;
  }
}
