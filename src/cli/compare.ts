import type { Deployment } from "./deployment.ts";
import type { FunctionStatus } from "./status.ts";

/** One field that is otherwise than asked for; undefined: not there. */
export interface Difference {
  readonly field: string;
  readonly deployed: string | undefined;
  readonly wanted: string | undefined;
}

/** Which side's environment variables count: `local` passes over those that only the gateway has. */
export type EnvironmentSide = "local" | "remote" | "all";

/** What a deploy of `wanted` would change about what is there. */
export function differences(
  wanted: Deployment,
  deployed: FunctionStatus,
  env: EnvironmentSide = "local",
): Difference[] {
  const found: Difference[] = [];
  const compare = (field: string, a: string | undefined, b: string | undefined) => {
    if ((a ?? "") !== (b ?? "")) found.push({ field, deployed: a, wanted: b });
  };
  const list = (all: readonly string[] | null | undefined) => (all?.length ? [...all].sort().join(", ") : undefined);
  const maps = (
    field: string,
    a: Record<string, string> | null | undefined,
    b: Record<string, string> | undefined,
    side: EnvironmentSide,
  ) => {
    const keys = new Set([
      ...(side === "local" ? [] : Object.keys(a ?? {})),
      ...(side === "remote" ? [] : Object.keys(b ?? {})),
    ]);
    for (const key of [...keys].sort()) compare(`${field}.${key}`, a?.[key], b?.[key]);
  };
  compare("image", deployed.image, wanted.image);
  compare("fprocess", deployed.envProcess, wanted.envProcess);
  compare(
    "readonly_root_filesystem",
    String(deployed.readOnlyRootFilesystem ?? false),
    String(wanted.readOnlyRootFilesystem ?? false),
  );
  maps("environment", deployed.envVars, wanted.envVars, env);
  compare("secrets", list(deployed.secrets), list(wanted.secrets));
  compare("constraints", list(deployed.constraints), list(wanted.constraints));
  maps("labels", deployed.labels, wanted.labels, "all");
  maps("annotations", deployed.annotations, wanted.annotations, "all");
  maps("limits", deployed.limits, wanted.limits, "all");
  maps("requests", deployed.requests, wanted.requests, "all");
  return found;
}
