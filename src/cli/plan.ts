import { type Difference, differences, type EnvironmentSide } from "./compare.ts";
import type { Context } from "./context.ts";
import type { Deployment } from "./deployment.ts";
import type { Gateway } from "./gateway.ts";
import { coloured, forOutput, print, printJson } from "./output.ts";
import { listFunctions } from "./status.ts";

interface Planned {
  readonly name: string;
  readonly namespace?: string;
  readonly action: "create" | "update" | "none";
  readonly changes: readonly Difference[];
}

/** What a deploy would do, without doing it. */
export async function plan(gateway: Gateway, wanted: readonly Deployment[], env: EnvironmentSide): Promise<Planned[]> {
  const namespaces = [...new Set(wanted.map((d) => d.namespace))];
  const lists = new Map(await Promise.all(namespaces.map(async (n) => [n, await listFunctions(gateway, n)] as const)));
  return wanted.map((d) => {
    const deployed = lists.get(d.namespace)!.find((f) => f.name === d.service);
    const changes = deployed ? differences(d, deployed, env) : [];
    const action = !deployed ? "create" : changes.length > 0 ? "update" : "none";
    return { name: d.service, ...(d.namespace && { namespace: d.namespace }), action, changes };
  });
}

export function printPlan(context: Context, planned: readonly Planned[], json: boolean): void {
  if (json) {
    printJson(context, planned);
    return;
  }
  const { stdout } = context;
  const words = { create: "is not deployed", update: "differs", none: "is as deployed" };
  for (const { name, action, changes } of planned) {
    print(context, forOutput(stdout, `${name} ${words[action]}`));
    for (const { field, deployed, wanted } of changes) {
      if (deployed !== undefined)
        print(context, coloured(context, stdout, "red", forOutput(stdout, `  - ${field}: ${deployed}`)));
      if (wanted !== undefined)
        print(context, coloured(context, stdout, "green", forOutput(stdout, `  + ${field}: ${wanted}`)));
    }
  }
}
