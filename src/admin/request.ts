import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { AppError } from "../base/errors.ts";
import { spelled } from "../base/json.ts";

/** A part of a path that is a name: what holds other characters is no route (contracts/api.md §1.1). */
export const nameInPath = ":name(^[A-Za-z0-9._-]*$)";

/** A body by its schema, whose keys may be spelled in any case. Fails with BAD_JSON, naming the field. */
export function parseBody<T>(schema: z.ZodType<T>, body: unknown): T {
  const keys = schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
  const parsed = schema.safeParse(spelled(body, keys));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new AppError("BAD_JSON", [`${issue.path.join(".") || "the body"}: ${issue.message}`]);
}

/** Clients put the namespace into the body or into the query: the body wins, else the query, else the default (§2.2). */
export function namespaceOf(request: FastifyRequest, inBody: string | null | undefined, fallback: string): string {
  return inBody || queryOf(request, "namespace") || fallback;
}

/** A parameter of the query, the last one if it is there several times. */
export function queryOf(request: FastifyRequest, name: string): string | undefined {
  const value = (request.query as Record<string, string | string[] | undefined>)[name];
  return Array.isArray(value) ? value.at(-1) : value;
}

/** What Go's ParseBool takes for true (§2.7). */
export function isTrue(text: string | undefined): boolean {
  return text !== undefined && ["1", "t", "T", "TRUE", "true", "True"].includes(text);
}
