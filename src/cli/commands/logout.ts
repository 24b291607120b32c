import { configFile, removeLogin } from "../credentials.ts";
import { Failure } from "../failure.ts";
import { type GatewayFlags, gatewayFlags } from "../flags.ts";
import { gatewayUrl } from "../gateway.ts";
import type { Define } from "../main.ts";
import { printDone } from "../output.ts";

export const define: Define = (command, context) => {
  gatewayFlags(command)
    .option("-j, --json", "result as JSON")
    .action(async (flags: GatewayFlags & { json?: boolean }) => {
      const url = gatewayUrl(context, flags);
      if (!(await removeLogin(context, url))) throw new Failure(`${configFile(context)} has no login for ${url}`);
      printDone(context, flags, { gateway: url }, `forgot the login for ${url}`);
    });
};
