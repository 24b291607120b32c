import type { FastifyRequest } from "fastify";
import type { z } from "zod";
import { AppError } from "../base/errors.ts";

/** A body by its schema. Fails with BAD_JSON, naming the field. */
export function parseBody<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new AppError("BAD_JSON", [`${issue.path.join(".") || "the body"}: ${issue.message}`]);
}

/** Clients put the namespace into the body or into the query: the body wins, else the query, else the default (§2.2). */
export function namespaceOf(request: FastifyRequest, inBody: string | null | undefined, fallback: string): string {
  const inQuery = (request.query as Record<string, string | string[] | undefined>).namespace;
  return inBody || (Array.isArray(inQuery) ? inQuery.at(-1) : inQuery) || fallback;
}

/** A switch in the query, in the spellings that Go's clients use: `1`, `t`, `true` in any case. */
export function isTruthy(request: FastifyRequest, key: string): boolean {
  const value = (request.query as Record<string, string | string[] | undefined>)[key];
  return /^(?:1|t|true)$/i.test((Array.isArray(value) ? value.at(-1) : value) ?? "");
}
