import { configFile, removeLogin } from "../credentials.ts";
import { Failure } from "../failure.ts";
import { type GatewayFlags, gatewayFlags } from "../flags.ts";
import { gatewayUrl } from "../gateway.ts";
import type { Define } from "../main.ts";
import { print } from "../output.ts";

export const define: Define = (command, context) => {
  gatewayFlags(command).action(async (flags: GatewayFlags) => {
    const url = gatewayUrl(context, flags);
    if (!(await removeLogin(context, url))) throw new Failure(`${configFile(context)} has no login for ${url}`);
    print(context, `forgot the login for ${url}`);
  });
};
