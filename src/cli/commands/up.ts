import type { Command } from "commander";
import { buildFlags } from "../build-flags.ts";
import type { Context } from "../context.ts";
import { functionFlags } from "../deployment.ts";
import { keepUp } from "../dev.ts";
import { wrongUsage } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag, stackFlags } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import { type Plan, type PlanFlags, planUp } from "../jobs.ts";
import type { Define } from "../main.ts";
import { remark } from "../output.ts";
import { runJobs } from "../run-jobs.ts";
import { type DeployFlags, deployFlags, deployOptions } from "./deploy.ts";

/** Of `up` and `dev`. */
export interface UpFlags extends GatewayFlags, DeployFlags, PlanFlags {
  skipPush?: boolean;
  skipDeploy?: boolean;
}

export const upFlags = (command: Command): Command =>
  buildFlags(deployFlags(functionFlags(namespaceFlag(stackFlags(gatewayFlags(command.argument("[folder]")))))))
    .option("--process <command>", "folder: what is run for each call")
    .option("--base <image>", "folder: image that it is put on")
    .option("--lang <template>", "folder: template that calls its handler")
    .option("--no-builder", "make images without a builder, whatever is there")
    .option("--skip-push", "send what is built to napd instead of pushing it to a registry");

export const define: Define = (command, context) => {
  upFlags(command)
    .description("from code to running functions: those of the stack file, or of a folder of scripts")
    .option("--skip-deploy", "make the images and stop there")
    .option("--watch", "go on with every change, until Ctrl-C; nap dev shows the logs as well")
    .action(async (folder: string | undefined, flags: UpFlags & { watch?: boolean }) => {
      if (flags.watch && flags.json) throw wrongUsage("--watch has no end at which it could give JSON");
      const [verbose, quiet] = [flags.verbose ?? false, flags.quiet ?? false];
      const open = (plan: Plan) => openGateway(context, flags, plan.gateway);
      if (flags.watch) {
        await keepUp(context, open, () => plannedUp(context, folder, flags), { verbose, quiet, logs: false });
        return;
      }
      const plan = await plannedUp(context, folder, flags);
      await runJobs(context, await open(plan), plan.jobs, { json: flags.json ?? false, quiet, verbose, live: true });
    });
};

/** The plan; what was guessed is said. */
export async function plannedUp(context: Context, folder: string | undefined, flags: UpFlags): Promise<Plan> {
  const { json: _, ...how } = deployOptions(flags);
  const options = { ...how, deploy: !flags.skipDeploy, push: !flags.skipPush, pull: flags.pull ?? false };
  const plan = await planUp(context, folder, flags, options);
  for (const job of flags.quiet ? [] : plan.jobs) if (job.remark) remark(context, `${job.name}: ${job.remark}`);
  return plan;
}
