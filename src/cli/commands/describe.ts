import { type GatewayFlags, gatewayFlags, namespaceFlag, type StackFlags, stackFlags } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { forOutput, print, printJson } from "../output.ts";
import { stackGateway } from "../stack-file.ts";
import { type FunctionStatus, getFunction, listFunctions, publicName } from "../status.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
  verbose?: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  namespaceFlag(stackFlags(gatewayFlags(command.argument("<function>"))))
    .option("-v, --verbose", "with what is not set")
    .option("-j, --json", "as JSON")
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags, await stackGateway(context, flags));
      const namespace = flags.namespace || undefined;
      const status = await getFunction(gateway, name, namespace);
      // how often it was called only the list says
      const listed = (await listFunctions(gateway, namespace)).find((f) => f.name === status.name);
      const invocations = Math.trunc(listed?.invocationCount ?? 0);
      const target = publicName(status.name, namespace);
      const urls = { url: `${gateway.url}/function/${target}`, asyncUrl: `${gateway.url}/async-function/${target}` };
      if (flags.json) return printJson(context, { ...status, invocationCount: invocations, ...urls });
      for (const line of describe(status, invocations, urls, flags.verbose ?? false))
        print(context, forOutput(context.stdout, line));
    });
};

function describe(
  f: FunctionStatus,
  invocations: number,
  urls: { url: string; asyncUrl: string },
  verbose: boolean,
): string[] {
  const ready = (f.availableReplicas ?? 0) > 0 ? "Ready" : "Not ready";
  const failure = f.lastFailure;
  const single: [string, unknown][] = [
    ["Name", f.name],
    ["Namespace", f.namespace],
    ["Status", f.state ? f.state : ready],
    ["Reason", f.reason],
    ["Replicas", f.replicas ?? 0],
    ["Available", f.availableReplicas ?? 0],
    ["Invocations", invocations],
    ["Restarts", f.restarts],
    ["Last failure", failure && `${failure.reason} (${failure.at})`],
    ["Image", f.image],
    ["Process", f.envProcess || "<default>"],
    ["Read-only", f.readOnlyRootFilesystem],
    ["Created", f.createdAt],
    ["URL", urls.url],
    ["Async URL", urls.asyncUrl],
    ["Memory", f.usage && `${((f.usage.totalMemoryBytes ?? 0) / 2 ** 20).toFixed(2)} MiB`],
    ["CPU", f.usage && `${Math.round(f.usage.cpu ?? 0)} m`],
  ];
  const maps: [string, Record<string, string> | null | undefined][] = [
    ["Labels", f.labels],
    ["Annotations", f.annotations],
    ["Environment", f.envVars],
    ["Requests", f.requests],
    ["Limits", f.limits],
  ];
  const lists: [string, string[] | null | undefined][] = [
    ["Constraints", f.constraints],
    ["Secrets", f.secrets],
  ];
  const items: [string, string[]][] = [
    ...maps.map(([title, map]): [string, string[]] => [
      title,
      Object.entries(map ?? {})
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, value]) => `${key}: ${value}`),
    ]),
    ...lists.map(([title, list]): [string, string[]] => [title, (list ?? []).map((item) => `- ${item}`)]),
  ];
  return [
    ...single
      .filter(([, value]) => verbose || (value !== undefined && value !== ""))
      .map(([title, value]) => `${`${title}:`.padEnd(14)}${value ?? "<none>"}`),
    ...items.flatMap(([title, list]) =>
      list.length > 0
        ? [`${title}:`, ...list.map((item) => `  ${item}`)]
        : verbose
          ? [`${`${title}:`.padEnd(14)}<none>`]
          : [],
    ),
  ];
}
