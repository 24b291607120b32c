import type { EnvironmentSide } from "../compare.ts";
import { deploymentOf, type FunctionFlags } from "../deployment.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag, onOff, type StackFlags, stackFlags } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { plan, printPlan } from "../plan.ts";
import { chosen, readStack } from "../stack.ts";
import { findStackFile } from "../stack-file.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
  env: EnvironmentSide;
  readTemplate: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  namespaceFlag(stackFlags(gatewayFlags(command)))
    .description("how what is deployed differs from a stack file; exit code 1 if it does, 2 when that is not known")
    .option("--env <side>", "environment variables that count: local (of the file), remote or all", "local")
    .option("-j, --json", "as JSON");
  onOff(command, "read-template", "look for the process of a function in its template").action(async (flags: Flags) => {
    if (!["local", "remote", "all"].includes(flags.env)) throw wrongUsage("--env takes local, remote or all");
    const planned = await compare(flags).catch((e) => {
      throw e instanceof Failure ? new Failure(e.message, 2) : e;
    });
    printPlan(context, planned, flags.json ?? false);
    if (planned.some((p) => p.action !== "none")) throw new Failure("", 1);
  });

  async function compare(flags: Flags) {
    const file = await findStackFile(context, flags.yaml);
    if (file === undefined) throw wrongUsage("there is no stack file; name one by -f");
    const stack = await readStack(context, file, flags.envsubst);
    const gateway = await openGateway(context, flags, stack.gateway);
    const none = { env: [], label: [], annotation: [], constraint: [], secret: [] };
    const over: FunctionFlags = { ...none, ...(flags.namespace && { namespace: flags.namespace }) };
    const functions = chosen(stack, flags);
    const wanted = await Promise.all(functions.map((f) => deploymentOf(context, f, over, flags.readTemplate)));
    return plan(gateway, wanted, flags.env);
  }
};
