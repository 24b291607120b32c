import { setTimeout as delay } from "node:timers/promises";
import { Failure, wrongUsage } from "../failure.ts";
import {
  duration,
  type GatewayFlags,
  gatewayFlags,
  namespaceFlag,
  type StackFlags,
  wholeNumber,
  yamlFlag,
} from "../flags.ts";
import { type Gateway, openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { printDone } from "../output.ts";
import { stackGateway } from "../stack-file.ts";
import { getFunction, settled } from "../status.ts";

interface Flags extends GatewayFlags, StackFlags {
  namespace?: string;
  attempts: number;
  interval: number;
  json?: boolean;
}

export const define: Define = (command, context) => {
  namespaceFlag(gatewayFlags(yamlFlag(command.argument("[function]"), "-f, --yaml <file>")))
    .description("wait until a function can be called, or without one until the gateway answers")
    .option("--attempts <number>", "how often to ask", wholeNumber, 60)
    .option("--interval <duration>", "between two questions", duration, 1000)
    .option("-j, --json", "as JSON")
    .action(async (name: string | undefined, flags: Flags) => {
      const gateway = await openGateway(context, flags, await stackGateway(context, flags));
      if (flags.attempts < 1) throw wrongUsage("--attempts takes a number from 1");
      let why = "";
      for (let attempt = 1; attempt <= flags.attempts; attempt++) {
        if (attempt > 1) await delay(flags.interval, undefined, { signal: context.signal });
        const answer = await ask(gateway, name, flags.namespace).catch((e) => {
          if (e instanceof Failure) return e.message;
          throw e;
        });
        if (answer === true) {
          const done = {
            ...(name === undefined ? { gateway: gateway.url } : { name }),
            ready: true,
            attempts: attempt,
          };
          return printDone(context, flags, done, `${name ?? gateway.url} is ready`);
        }
        why = answer;
      }
      throw new Failure(`${name ?? gateway.url} is not ready after ${flags.attempts} attempts: ${why}`);
    });
};

/** True, or why not. */
async function ask(gateway: Gateway, name: string | undefined, namespace: string | undefined): Promise<true | string> {
  if (name === undefined) {
    const { status } = await gateway.request("GET", "/healthz", { anonymous: true });
    return status === 200 || `it answers ${status}`;
  }
  const { availableReplicas = 0, state = "", reason } = await getFunction(gateway, name, namespace);
  return availableReplicas > 0 || settled.has(state) || (reason ?? "it has no replica that is ready");
}
