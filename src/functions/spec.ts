import { z } from "zod";
import { AppError } from "../base/errors.ts";
import { spelled } from "../base/json.ts";
import { type FunctionId, isName, isSecretName, nameRule } from "../base/names.ts";
import { parseCpu, parseMemory } from "../base/quantities.ts";

/**
 * A map of texts to texts, or null; kept as it is. Not zod's own record, which drops the key `__proto__`: these keys
 * are the user's, and come back as they went in.
 */
export const stringMap = z
  .custom<Record<string, string> | null>()
  .optional()
  .superRefine((value: unknown, context) => {
    if (value === undefined || value === null) return;
    if (typeof value !== "object" || Array.isArray(value))
      return context.addIssue({ code: "custom", message: "Invalid input: expected an object" });
    for (const [key, text] of Object.entries(value))
      if (typeof text !== "string")
        return context.addIssue({ code: "custom", path: [key], message: "Invalid input: expected string" });
  });

const text = z.string().nullish();
const resource = z.object({
  memory: text,
  cpu: text,
  "nvidia.com/gpu": text,
  "amd.com/gpu": text,
  "intel.com/gpu": text,
});
const resources = z.preprocess((value) => spelled(value, Object.keys(resource.shape)), resource.nullish());

/** FunctionDeployment, the body of POST and PUT /system/functions: contracts/api.md §2.1. Unknown fields are ignored. */
const deployment = z.object({
  service: z.string().default(""),
  image: z.string().default(""),
  namespace: z.string().nullish(),
  envProcess: z.string().nullish(),
  envVars: stringMap,
  constraints: z.array(z.string()).nullish(),
  secrets: z.array(z.string()).nullish(),
  labels: stringMap,
  annotations: stringMap,
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
/** All of the environment and the arguments together: Linux hands on a quarter of the stack's limit, here 2 MiB. */
const maxEnvironmentBytes = 1024 * 1024;
/** Longest `NAME=value` that Linux hands to a program: MAX_ARG_STRLEN, 32 pages. */
const maxEnvBytes = 131_071;

/**
 * Checks a request body and gives the function it describes. All that can be known without asking anybody is known
 * here. Fails with BAD_JSON (wrong types) or BAD_FUNCTION (values that cannot be). A namespace that the body names
 * wins over `queryNamespace`, and that over the default.
 */
export function parseDeployment(body: unknown, defaultNamespace: string, queryNamespace?: string): FunctionSpec {
  const parsed = deployment.safeParse(spelled(body, Object.keys(deployment.shape)));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new AppError("BAD_JSON", [`${issue.path.join(".") || "the body"}: ${issue.message}`]);
  }
  const d = parsed.data;
  const [limits, requests] = [withoutNull(d.limits), withoutNull(d.requests)];
  const spec: FunctionSpec = {
    name: d.service,
    namespace: d.namespace || queryNamespace || defaultNamespace,
    image: d.image,
    ...(d.envProcess && { envProcess: d.envProcess }),
    ...(filled(d.envVars) && { envVars: d.envVars }),
    ...(d.constraints && { constraints: d.constraints }),
    ...(d.secrets && { secrets: d.secrets }),
    ...(d.labels && { labels: d.labels }),
    ...(d.annotations && { annotations: d.annotations }),
    ...(filled(limits) && { limits }),
    ...(filled(requests) && { requests }),
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
  let environmentBytes = 0;
  for (const [name, value] of Object.entries(spec.envVars ?? {})) {
    if (name === "" || /[=\0]/.test(name)) bad("envVars", `"${name}" cannot be the name of an environment variable`);
    if (value.includes("\0")) bad(`envVars.${name}`, "a value cannot hold a NUL character");
    const bytes = Buffer.byteLength(name) + 1 + Buffer.byteLength(value);
    if (bytes > maxEnvBytes)
      bad(
        `envVars.${name}`,
        `${bytes} bytes are more than the ${maxEnvBytes} that Linux hands to a program; use a secret`,
      );
    environmentBytes += bytes + 1;
  }
  if (environmentBytes > maxEnvironmentBytes)
    bad("envVars", `${environmentBytes} bytes are more than the ${maxEnvironmentBytes} that all variables may have`);
  const processBytes = Buffer.byteLength(`fprocess=${spec.envProcess ?? ""}`);
  if (processBytes > maxEnvBytes) bad("envProcess", `it is longer than the ${maxEnvBytes} bytes that Linux hands on`);
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

function withoutNull(values: Record<string, string | null | undefined> | null | undefined): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values ?? {}).filter((entry): entry is [string, string] => entry[1] != null),
  );
}
