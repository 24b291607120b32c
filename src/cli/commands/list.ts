import { wrongUsage } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag, type StackFlags, stackFlags } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { print, printJson, printTable } from "../output.ts";
import { stackGateway } from "../stack-file.ts";
import { type FunctionStatus, listFunctions } from "../status.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
  verbose?: boolean;
  quiet?: boolean;
  sort: string;
  json?: boolean;
}

const orders: Record<string, (a: FunctionStatus, b: FunctionStatus) => number> = {
  name: (a, b) => (a.name < b.name ? -1 : 1),
  invocations: (a, b) => (b.invocationCount ?? 0) - (a.invocationCount ?? 0),
  creation: (a, b) => ((a.createdAt ?? "") < (b.createdAt ?? "") ? -1 : 1),
};

export const define: Define = (command, context) => {
  namespaceFlag(stackFlags(gatewayFlags(command)))
    .option("-v, --verbose", "with image and time of creation")
    .option("-q, --quiet", "names only")
    .option("--sort <by>", "name, invocations or creation", "name")
    .option("-j, --json", "as the gateway tells it")
    .action(async (flags: Flags) => {
      const order = orders[flags.sort];
      if (!order) throw wrongUsage(`--sort ${flags.sort}: it takes ${Object.keys(orders).join(", ")}`);
      const gateway = await openGateway(context, flags, await stackGateway(context, flags));
      const all = [...(await listFunctions(gateway, flags.namespace))].sort(order);
      if (flags.json) return printJson(context, all);
      if (flags.quiet) return all.forEach((f) => void print(context, f.name));
      const header = ["FUNCTION", "INVOCATIONS", "REPLICAS", "STATE"];
      const more = flags.verbose ? ["IMAGE", "CREATED"] : [];
      const rows = all.map((f) => [
        f.name,
        Math.trunc(f.invocationCount ?? 0),
        f.replicas ?? 0,
        f.state ?? ((f.availableReplicas ?? 0) > 0 ? "Ready" : "Not ready"),
        ...(flags.verbose ? [f.image, f.createdAt ?? ""] : []),
      ]);
      printTable(context, [...header, ...more], rows);
    });
};
