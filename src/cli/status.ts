import { missing, parsed, refused } from "./answers.ts";
import type { Gateway } from "./gateway.ts";

/** What `/system/functions` shows of a function; some of it is napd's alone. */
export interface FunctionStatus {
  name: string;
  image: string;
  namespace?: string;
  envProcess?: string;
  envVars?: Record<string, string> | null;
  constraints?: string[] | null;
  secrets?: string[] | null;
  labels?: Record<string, string> | null;
  annotations?: Record<string, string> | null;
  limits?: Record<string, string> | null;
  requests?: Record<string, string> | null;
  readOnlyRootFilesystem?: boolean;
  invocationCount?: number;
  replicas?: number;
  availableReplicas?: number;
  createdAt?: string;
  usage?: { cpu?: number; totalMemoryBytes?: number };
  state?: string;
  reason?: string;
  restarts?: number;
  lastFailure?: { at: string; reason: string; exitCode?: number };
}

export const listFunctions = async (gateway: Gateway, namespace?: string): Promise<FunctionStatus[]> =>
  gateway.get("/system/functions", { namespace: namespace || undefined }, "objects");

/** States of napd in which a function can be called: one that sleeps wakes up. */
export const settled: ReadonlySet<string> = new Set(["Ready", "Asleep", "Stopped"]);

/** A function with what it uses of the machine. */
export async function getFunction(gateway: Gateway, name: string, namespace?: string): Promise<FunctionStatus> {
  const path = functionPath(name);
  const query = { usage: "1", namespace: namespace || undefined };
  const reply = await gateway.request("GET", path, { query });
  if (reply.status === 404)
    throw missing(gateway.url, reply, `function ${name} does not exist; nap list shows those that do`);
  if (reply.status !== 200) throw refused(gateway.url, reply);
  return parsed(gateway.url + path, reply, "object");
}

/** The part of a path that names a function. */
export const functionPath = (name: string): string => `/system/function/${encodeURIComponent(name)}`;

export const publicName = (name: string, namespace?: string): string => (namespace ? `${name}.${namespace}` : name);
