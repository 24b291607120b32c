import { Failure, wrongUsage } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag, type StackFlags, stackFlags } from "../flags.ts";
import { openGateway, refused } from "../gateway.ts";
import type { Define } from "../main.ts";
import { print, remark } from "../output.ts";
import { findStackFile } from "../stack-file.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
}

export const define: Define = (command, context) => {
  namespaceFlag(stackFlags(gatewayFlags(command.argument("[functions...]"))))
    .description("remove functions, or all of a stack file")
    .action(async (names: string[], flags: Flags) => {
      const file = await findStackFile(context, flags.yaml);
      const { readStack, chosen } = await import("../stack.ts");
      const stack = file && (await readStack(context, file, flags.envsubst));
      const targets =
        names.length > 0
          ? names.map((name) => ({ name, namespace: flags.namespace }))
          : stack
            ? chosen(stack, flags).map((f) => ({ name: f.name, namespace: flags.namespace || f.namespace }))
            : undefined;
      if (!targets) throw wrongUsage("which function? Name it, or a stack file by -f");
      const gateway = await openGateway(context, flags, stack ? stack.gateway : undefined);
      const failed: string[] = [];
      await Promise.all(
        targets.map(async ({ name, namespace }) => {
          const body = { functionName: name, ...(namespace && { namespace }) };
          const reply = await gateway.request("DELETE", "/system/functions", { body });
          if ([200, 201, 202].includes(reply.status)) return print(context, `${name} removed`);
          // of a whole stack, what is not there is as it should be
          if (reply.status === 404 && names.length === 0) return remark(context, `${name} is not deployed`);
          failed.push(reply.status === 404 ? `function ${name} does not exist` : refused(gateway.url, reply).message);
        }),
      );
      if (failed.length > 0) throw new Failure(failed.join("\n"));
    });
};
