import { missing, refused } from "../answers.ts";
import { wrongUsage } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag, type StackFlags, wholeNumber, yamlFlag } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { printDone } from "../output.ts";
import { stackGateway } from "../stack-file.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
  replicas?: number;
  json?: boolean;
}

export const define: Define = (command, context) => {
  namespaceFlag(gatewayFlags(yamlFlag(command.argument("<function>").argument("[replicas]"), "-f, --yaml <file>")))
    .description("ask for so many replicas of a function; 0: asleep until somebody calls")
    .option("--replicas <number>", "instead of the second argument", wholeNumber)
    .option("-j, --json", "result as JSON")
    .action(async (name: string, argument: string | undefined, flags: Flags) => {
      const replicas = argument === undefined ? flags.replicas : wholeNumber(argument);
      if (replicas === undefined || replicas < 0) throw wrongUsage("how many replicas? nap scale FUNCTION NUMBER");
      const gateway = await openGateway(context, flags, await stackGateway(context, flags));
      const body = { serviceName: name, replicas, ...(flags.namespace && { namespace: flags.namespace }) };
      const path = `/system/scale-function/${encodeURIComponent(name)}`;
      const reply = await gateway.request("POST", path, { body });
      if (reply.status === 404)
        throw missing(gateway.url, reply, `function ${name} does not exist; nap list shows those that do`);
      if (![200, 201, 202].includes(reply.status)) throw refused(gateway.url, reply);
      const done = { name, ...(flags.namespace && { namespace: flags.namespace }), replicas };
      printDone(context, flags, done, `${name} scaled to ${replicas}`);
    });
};
