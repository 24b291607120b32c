import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { AppError, messageOf } from "../base/errors.ts";
import { parseJson } from "../base/json.ts";
import type { ImageChanges, ImageComposition } from "../functions/backend.ts";
import { stringMap } from "../functions/spec.ts";
import { queryOf } from "./request.ts";

/** Nothing that Linux hands to a program can hold a NUL. */
const text = z.string().regex(/^[^\0]*$/, "cannot hold a NUL character");
const words = z.array(text).max(1000).optional();

/** Query parameter `config`. Strict: a misspelt field would be a program that is not run. */
const changes = z.strictObject({
  env: stringMap.refine(isEnvironment, "names cannot be empty or hold =, values cannot hold a NUL character"),
  entrypoint: words,
  cmd: words,
  workingDir: text.startsWith("/").max(4096).optional(),
  user: z
    .string()
    .regex(/^[^\s\0]{0,256}$/, "must be USER or USER:GROUP")
    .optional(),
  labels: stringMap,
});

function isEnvironment(env: Record<string, string> | null | undefined): boolean {
  return Object.entries(env ?? {}).every(([name, value]) => /^[^=\0]+$/.test(name) && !String(value).includes("\0"));
}

const policies = ["Always", "IfNotPresent", "Never"] as const;

/** What the query asks to be composed, all but the body. Throws BAD_REQUEST. */
export function compositionOf(
  request: FastifyRequest,
  base: string,
  body: AsyncIterable<Buffer> | undefined,
): ImageComposition {
  const bad = (why: string) => new AppError("BAD_REQUEST", [why]);
  const name = queryOf(request, "name");
  if (!name) throw bad("query parameter name is missing: what the image shall be called");
  const pull = queryOf(request, "pull") || undefined;
  if (pull !== undefined && !isPolicy(pull)) throw bad(`query parameter pull must be one of ${policies.join(", ")}`);
  const layer = queryOf(request, "layer") || undefined;
  if (layer !== undefined && !/^sha256:[0-9a-f]{64}$/.test(layer))
    throw bad("query parameter layer must be sha256: with 64 lower-case hexadecimal digits");
  if (!body && !layer)
    throw bad(
      "the request has no body; send the layer as a tar file, or name one that is here with query parameter layer",
    );
  return { name, base, pull, layer, body, changes: changesIn(queryOf(request, "config")) };
}

function isPolicy(value: string): value is (typeof policies)[number] {
  return policies.some((policy) => policy === value);
}

function changesIn(json: string | undefined): ImageChanges {
  if (!json) return {};
  const bad = (why: string) => new AppError("BAD_REQUEST", [`query parameter config: ${why}`]);
  let value: unknown;
  try {
    value = parseJson(Buffer.from(json));
  } catch (e) {
    throw bad(messageOf(e));
  }
  const parsed = changes.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw bad(`${issue.path.join(".") || "it"}: ${issue.message}`);
  }
  return Object.fromEntries(Object.entries(parsed.data).filter(([, v]) => v != null));
}
