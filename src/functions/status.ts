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
  /** Asleep: frozen, a call wakes it in milliseconds. Stopped: without processes, a call starts it. */
  state: "Ready" | "Asleep" | "Stopped" | "Deploying" | "Degraded" | "Failed";
  /** Why it is not simply ready. */
  reason?: string;
  /** How often a replica of this version had to be started again since napd runs; absent when none had to. */
  restarts?: number;
  /** The last time, and why. */
  lastFailure?: { at: string; reason: string; exitCode?: number };
}

/** Design §6. */
export function statusOf(observed: Observed): FunctionStatus {
  const { row, available, calls, reason, restarts, lastFailure } = observed;
  return {
    ...row.version.spec,
    invocationCount: calls.ended,
    replicas: row.replicas,
    availableReplicas: available,
    createdAt: new Date(row.createdAt).toISOString(),
    state: stateOf(observed),
    ...(reason !== null && { reason }),
    ...(lastFailure && { restarts, lastFailure: { ...lastFailure, at: new Date(lastFailure.at).toISOString() } }),
  };
}

function stateOf({ row, available, states, starting, reason }: Observed): FunctionStatus["state"] {
  const { ready = 0, freezing = 0, frozen = 0 } = states;
  if (row.stopped) return "Stopped";
  if (row.replicas === 0) return ready + freezing + frozen > 0 ? "Asleep" : "Stopped"; // kept to be woken by a call
  if (available >= row.replicas) {
    if (starting || row.previous !== null) return "Deploying";
    return ready === 0 ? "Asleep" : "Ready";
  }
  if (available > 0) return "Degraded";
  return reason === null ? "Deploying" : "Failed";
}
