import { missing, refused } from "../answers.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag, type StackFlags, stackFlags } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { print, printJson, remark } from "../output.ts";
import { findStackFile } from "../stack-file.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
  json?: boolean;
}

export const define: Define = (command, context) => {
  namespaceFlag(stackFlags(gatewayFlags(command.argument("[functions...]"))))
    .description("remove functions, or all of a stack file")
    .option("-j, --json", "results as JSON")
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
      const results = await Promise.all(
        targets.map(async ({ name, namespace }) => {
          const target = { name, ...(namespace && { namespace }) };
          const failed = (error: string) => ({ ...target, status: "failed", error });
          const body = { functionName: name, ...(namespace && { namespace }) };
          const reply = await gateway.request("DELETE", "/system/functions", { body }).catch((e) => {
            if (e instanceof Failure) return failed(e.message);
            throw e;
          });
          if ("error" in reply) return reply;
          if ([200, 201, 202].includes(reply.status)) {
            if (!flags.json) print(context, `${name} removed`);
            return { ...target, status: "removed" };
          }
          if (reply.status !== 404) return failed(refused(gateway.url, reply).message);
          if (names.length > 0) return failed(missing(gateway.url, reply, `function ${name} does not exist`).message);
          // of a whole stack, what is not there is as it should be
          remark(context, `${name} is not deployed`);
          return { ...target, status: "absent" };
        }),
      );
      if (flags.json) printJson(context, results);
      const errors = new Set(results.flatMap((r) => ("error" in r ? [r.error] : [])));
      if (errors.size > 0) throw new Failure([...errors].join("\n"));
    });
};
