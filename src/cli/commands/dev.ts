import { refused } from "../answers.ts";
import type { Context } from "../context.ts";
import { keepUp } from "../dev.ts";
import { Failure } from "../failure.ts";
import { type Gateway, openGateway } from "../gateway.ts";
import type { Job, Plan } from "../jobs.ts";
import type { Define } from "../main.ts";
import { remark } from "../output.ts";
import { plannedUp, type UpFlags, upFlags } from "./up.ts";

interface Flags extends UpFlags {
  remove?: boolean;
}

export const define: Define = (command, context) => {
  upFlags(command)
    .description("as up, again with every change, with what the functions write; Ctrl-C ends it")
    .option("--remove", "remove the functions at the end")
    .action(async (folder: string | undefined, flags: Flags) => {
      const open = (plan: Plan) => openGateway(context, flags, plan.gateway);
      const options = { verbose: flags.verbose ?? false, quiet: flags.quiet ?? false, logs: true };
      const { gateway, jobs } = await keepUp(context, open, () => plannedUp(context, folder, flags), options);
      // Ctrl-C has ended everything of this context; SIGINT ends the process from here on
      if (flags.remove) await removeAll(await reopened(context, flags, gateway), jobs);

      async function removeAll(again: Gateway, all: readonly Job[]): Promise<void> {
        const ends = await Promise.allSettled(all.map((job) => remove(again, job)));
        for (const { name } of all.filter((_, i) => ends[i]!.status === "fulfilled"))
          remark(context, `${name} removed`);
        const failed = ends.filter((end) => end.status === "rejected").map((end) => (end.reason as Error).message);
        if (failed.length > 0) throw new Failure(failed.join("\n"));
      }
    });
};

/** The same gateway for a context that goes on. */
function reopened(context: Context, flags: Flags, { url }: Gateway): Promise<Gateway> {
  return openGateway({ ...context, signal: new AbortController().signal }, { ...flags, gateway: url });
}

async function remove(gateway: Gateway, { name, namespace }: Job): Promise<void> {
  const body = { functionName: name, ...(namespace && { namespace }) };
  const reply = await gateway.request("DELETE", "/system/functions", { body });
  if (![200, 202, 404].includes(reply.status)) throw refused(gateway.url, reply);
}
