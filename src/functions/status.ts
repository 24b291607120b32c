import type { Observed } from "./managed.ts";

/** FunctionStatus of contracts/api.md §2.1, with two fields of our own that other clients ignore. */
export interface FunctionStatus {
  name: string;
  namespace: string;
  image: string;
  envProcess?: string;
  envVars?: Record<string, string>;
  constraints?: string[];
  secrets?: string[];
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  limits?: Record<string, string>;
  requests?: Record<string, string>;
  readOnlyRootFilesystem?: boolean;
  invocationCount: number;
  /** Asked for. */
  replicas: number;
  /** Answering now, or after a wake. */
  availableReplicas: number;
  /** RFC 3339. */
  createdAt: string;
  state: "Ready" | "Stopped" | "Deploying" | "Degraded" | "Failed";
  /** Why it is not simply ready. */
  reason?: string;
  /** How often a replica of this version had to be started again since napd runs; absent when none had to. */
  restarts?: number;
  /** The last time, and why. */
  lastFailure?: { at: string; reason: string; exitCode?: number };
}

/** Design §6. */
export function statusOf({ row, available, calls, starting, reason, restarts, lastFailure }: Observed): FunctionStatus {
  return {
    ...row.version.spec,
    invocationCount: calls.ended,
    replicas: row.replicas,
    availableReplicas: available,
    createdAt: new Date(row.createdAt).toISOString(),
    state: stateOf(row.replicas, available, starting || row.previous !== null, reason),
    ...(reason !== null && { reason }),
    ...(lastFailure && { restarts, lastFailure: { ...lastFailure, at: new Date(lastFailure.at).toISOString() } }),
  };
}

function stateOf(
  replicas: number,
  available: number,
  deploying: boolean,
  reason: string | null,
): FunctionStatus["state"] {
  if (replicas === 0) return "Stopped";
  if (available >= replicas) return deploying ? "Deploying" : "Ready";
  if (available > 0) return "Degraded";
  return reason === null ? "Deploying" : "Failed";
}
