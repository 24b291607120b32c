import { z } from "zod";
import { AppError } from "../base/errors.ts";
import { type FunctionId, isName, isSecretName, nameRule } from "../base/names.ts";
import { parseCpu, parseMemory } from "../base/quantities.ts";

const map = z.record(z.string(), z.string()).nullish();
const resources = z.object({ memory: z.string(), cpu: z.string() }).partial().catchall(z.string()).nullish();

/** FunctionDeployment, the body of POST and PUT /system/functions: contracts/api.md §2.1. Unknown fields are ignored. */
const deployment = z.object({
  service: z.string().default(""),
  image: z.string().default(""),
  namespace: z.string().nullish(),
  envProcess: z.string().nullish(),
  envVars: map,
  constraints: z.array(z.string()).nullish(),
  secrets: z.array(z.string()).nullish(),
  labels: map,
  annotations: map,
  limits: resources,
  requests: resources,
  readOnlyRootFilesystem: z.boolean().nullish(),
});

/**
 * A function as it was asked for, kept and echoed verbatim: clients compare (contracts/api.md §2.1, round-trip rule).
 * Empty `envVars`, `limits` and `requests` are left out.
 */
export interface FunctionSpec extends FunctionId {
  readonly image: string;
  readonly envProcess?: string;
  readonly envVars?: Record<string, string>;
  readonly constraints?: string[];
  readonly secrets?: string[];
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly limits?: Record<string, string>;
  readonly requests?: Record<string, string>;
  readonly readOnlyRootFilesystem?: boolean;
}

/** The least memory limit that can be asked for: below it a container does not come up at all. */
export const minMemoryBytes = 4 * 1024 * 1024;
/** Longest `NAME=value` that Linux hands to a program: MAX_ARG_STRLEN, 32 pages. */
const maxEnvBytes = 131_071;

/**
 * Checks a request body and gives the function it describes. All that can be known without asking anybody is known
 * here. Fails with BAD_JSON (wrong types) or BAD_FUNCTION (values that cannot be).
 */
export function parseDeployment(body: unknown, defaultNamespace: string): FunctionSpec {
  const parsed = deployment.safeParse(withOurSpelling(body));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new AppError("BAD_JSON", [`${issue.path.join(".") || "the body"}: ${issue.message}`]);
  }
  const d = parsed.data;
  const spec: FunctionSpec = {
    name: d.service,
    namespace: d.namespace || defaultNamespace,
    image: d.image,
    ...(d.envProcess && { envProcess: d.envProcess }),
    ...(filled(d.envVars) && { envVars: d.envVars }),
    ...(d.constraints && { constraints: d.constraints }),
    ...(d.secrets && { secrets: d.secrets }),
    ...(d.labels && { labels: d.labels }),
    ...(d.annotations && { annotations: d.annotations }),
    ...(filled(d.limits) && { limits: d.limits as Record<string, string> }),
    ...(filled(d.requests) && { requests: d.requests as Record<string, string> }),
    ...(d.readOnlyRootFilesystem && { readOnlyRootFilesystem: true }),
  };
  check(spec);
  return spec;
}

function check(spec: FunctionSpec): void {
  const bad = (field: string, why: string): never => {
    throw new AppError("BAD_FUNCTION", [field, why]);
  };
  if (!isName(spec.name))
    bad("service", spec.name === "" ? "a function needs a name" : `"${spec.name}" must be ${nameRule}`);
  if (!isName(spec.namespace)) bad("namespace", `"${spec.namespace}" must be ${nameRule}`);
  if (spec.image.trim() === "") bad("image", "a function needs an image");
  for (const [name, value] of Object.entries(spec.envVars ?? {})) {
    if (name === "" || /[=\0]/.test(name)) bad("envVars", `"${name}" cannot be the name of an environment variable`);
    if (value.includes("\0")) bad(`envVars.${name}`, "a value cannot hold a NUL character");
    const bytes = Buffer.byteLength(name) + 1 + Buffer.byteLength(value);
    if (bytes > maxEnvBytes)
      bad(
        `envVars.${name}`,
        `${bytes} bytes are more than the ${maxEnvBytes} that Linux hands to a program; use a secret`,
      );
  }
  if (spec.envProcess?.includes("\0")) bad("envProcess", "cannot hold a NUL character");
  for (const secret of spec.secrets ?? [])
    if (!isSecretName(secret)) bad("secrets", `"${secret}" cannot be the name of a secret`);
  for (const field of ["limits", "requests"] as const) {
    const { memory, cpu } = spec[field] ?? {};
    const bytes =
      memory === undefined || memory === ""
        ? undefined
        : (parseMemory(memory) ?? bad(`${field}.memory`, `"${memory}" is not an amount of memory such as 128Mi`));
    if (field === "limits" && bytes !== undefined && bytes < minMemoryBytes)
      bad("limits.memory", `${memory} is below the ${minMemoryBytes / 2 ** 20}Mi that a container needs to come up`);
    const cores =
      cpu === undefined || cpu === ""
        ? undefined
        : (parseCpu(cpu) ?? bad(`${field}.cpu`, `"${cpu}" is not a number of cores such as 0.5 or 500m`));
    if (cores !== undefined && (cores < 0.01 || cores > 4096))
      bad(`${field}.cpu`, `${cpu} is not between 10m and 4096 cores`);
  }
}

function filled(value: Record<string, unknown> | null | undefined): value is Record<string, string> {
  return value !== null && value !== undefined && Object.keys(value).length > 0;
}

/** Go clients spell keys in any case (contracts/api.md §1.1): brings the top level to ours. */
function withOurSpelling(body: unknown): unknown {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return body;
  const ours = new Map(Object.keys(deployment.shape).map((key) => [key.toLowerCase(), key]));
  return Object.fromEntries(Object.entries(body).map(([key, value]) => [ours.get(key.toLowerCase()) ?? key, value]));
}
