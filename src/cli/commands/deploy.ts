import { Option } from "commander";
import type { Context } from "../context.ts";
import { type DeployOptions, deployAll } from "../deploy.ts";
import { type Deployment, deploymentOf, deploymentOfFlags, type FunctionFlags, functionFlags } from "../deployment.ts";
import { Failure, wrongUsage } from "../failure.ts";
import {
  duration,
  type GatewayFlags,
  gatewayFlags,
  namespaceFlag,
  onOff,
  type StackFlags,
  stackFlags,
} from "../flags.ts";
import { openGateway, usualTimeoutMs } from "../gateway.ts";
import { type TagMode, tagFlag, tagged } from "../image-tag.ts";
import type { Define } from "../main.ts";
import { plan, printPlan } from "../plan.ts";
import { chosen, readStack } from "../stack.ts";
import { findStackFile } from "../stack-file.ts";

interface Flags extends GatewayFlags, StackFlags, FunctionFlags, DeployFlags {
  readTemplate: boolean;
  tag: TagMode;
  dryRun?: boolean;
}

/** How to deploy, of all commands that do. */
export interface DeployFlags {
  update: boolean;
  replace?: boolean;
  wait: boolean;
  waitTimeout: number;
  timeout?: number;
  json?: boolean;
}

export const deployFlags = (command: Parameters<Define>[0]): Parameters<Define>[0] => {
  onOff(command, "update", "change a function that is there: it must be new");
  onOff(command, "wait", "wait until it can be called");
  return command
    .option("--wait-timeout <duration>", "how long to wait", duration, 120_000)
    .option("--replace", "with --no-update: remove first what is there")
    .option("-j, --json", "results as JSON");
};

export function deployOptions(flags: DeployFlags): DeployOptions {
  if (flags.update && flags.replace) throw wrongUsage("--replace needs --update=false");
  return {
    update: flags.update,
    replace: flags.replace ?? false,
    wait: flags.wait,
    waitMs: flags.waitTimeout,
    timeoutMs: flags.timeout ?? Math.max(flags.waitTimeout, usualTimeoutMs),
    json: flags.json ?? false,
  };
}

export const define: Define = (command, context) => {
  deployFlags(functionFlags(namespaceFlag(stackFlags(gatewayFlags(command)))));
  onOff(command, "read-template", "look for the process of a function in its template");
  // of the original client, without effect there as well
  for (const flags of ["--network <name>", "--lang <name>", "--handler <dir>"])
    command.addOption(new Option(flags).hideHelp());
  command
    .addOption(tagFlag())
    .option("--dry-run", "say what would change, and change nothing")
    .action((flags: Flags) => deploy(context, flags));
};

async function deploy(context: Context, flags: Flags): Promise<void> {
  const options = deployOptions(flags);
  const { wanted, gateway: ofStack } = await wantedBy(context, flags);
  const gateway = await openGateway(context, flags, ofStack);
  if (flags.dryRun) return printPlan(context, await plan(gateway, wanted, "local"), flags.json ?? false);
  await deployAll(context, gateway, wanted, options);
}

/** From flags if an image is among them, unless a stack file is named; else from the stack file. */
export async function wantedBy(
  context: Context,
  flags: StackFlags & FunctionFlags & { readTemplate: boolean; tag?: TagMode },
): Promise<{ wanted: Deployment[]; gateway?: string }> {
  const file = flags.image && !flags.yaml ? undefined : await findStackFile(context, flags.yaml);
  if (file === undefined) return { wanted: [deploymentOfFlags(flags)] };
  const stack = await readStack(context, file, flags.envsubst);
  const functions = await tagged(context, chosen(stack, flags), flags.tag ?? "latest");
  if (functions.length === 0) throw new Failure(`${file} has no functions`);
  const wanted = await Promise.all(functions.map((f) => deploymentOf(context, f, flags, flags.readTemplate)));
  return { wanted, ...(stack.gateway && { gateway: stack.gateway }) };
}
