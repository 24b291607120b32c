import type { FastifyReply, FastifyRequest } from "fastify";
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
export function secretRoutes(add: AddResource, { secrets, defaultNamespace }: ApiOptions): void {
  const change =
    (work: (namespace: string, name: string, value: Buffer) => Promise<void>) =>
    async (request: FastifyRequest, reply: FastifyReply) => {
      const { name, namespace, value, rawValue } = parseBody(secret, request.body);
      if (!isSecretName(name))
        throw new AppError("BAD_REQUEST", [
          `"${name}" cannot be the name of a secret: letters, digits, hyphens, underscores and dots, at most 253`,
        ]);
      await work(namespaceOf(request, namespace, defaultNamespace), name, bytesOf(value, rawValue));
      return reply.code(202).send();
    };

  add("/system/secrets", {
    GET: async (request) => {
      const namespace = namespaceOf(request, undefined, defaultNamespace);
      return (await secrets.list(namespace)).map((name) => ({ name, namespace }));
    },
    POST: change((namespace, name, value) => secrets.create(namespace, name, value)),
    PUT: change((namespace, name, value) => secrets.replace(namespace, name, value)),
    DELETE: change((namespace, name) => secrets.remove(namespace, name)),
  });
}

/** `rawValue` (base64, RFC 4648 §4; line breaks do not count) wins over `value` when it is not empty. */
function bytesOf(value: string | null | undefined, rawValue: string | null | undefined): Buffer {
  if (!rawValue) return Buffer.from(value ?? "", "utf8");
  const text = rawValue.replace(/[\r\n]/g, "");
  const bytes = Buffer.from(text, "base64");
  // what is decoded leniently does not come out the same again
  if (bytes.toString("base64") !== text) throw new AppError("BAD_JSON", ["rawValue: it is not base64 with padding"]);
  return bytes;
}
