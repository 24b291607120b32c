import type { Context } from "./context.ts";
import { forEachFunction } from "./deploy.ts";
import type { Gateway } from "./gateway.ts";
import type { Job } from "./jobs.ts";
import { coloured, forOutput, remark } from "./output.ts";

export interface RunOptions {
  readonly json: boolean;
  /** Tells nothing but failures. */
  readonly quiet: boolean;
  /** Tells what each step took. */
  readonly verbose: boolean;
  /** Lines that change; not where logs are written in between. */
  readonly live: boolean;
}

/** Does jobs at once, a line for each; fails with all that went wrong when every one has ended. */
export async function runJobs(
  context: Context,
  gateway: Gateway,
  jobs: readonly Job[],
  { json, quiet, verbose, live }: RunOptions,
): Promise<void> {
  const behind: string[] = [];
  try {
    await forEachFunction(context, gateway, jobs, { json, live, quiet }, async (job, tell) => {
      const done = await job.run(gateway, tell);
      const { steps = [], notes = [], state, how, image } = done;
      behind.push(...notes.map((note) => `${job.name}: ${note}`));
      if (verbose) behind.push(`${job.name}: ${steps.map(({ step, ms }) => `${step} (${ms} ms)`).join(", ")}`);
      return { state, ...(how && { how }), more: { ...(image && { image }), ...(steps.length > 0 && { steps }) } };
    });
  } finally {
    for (const line of quiet ? [] : behind)
      remark(context, coloured(context, context.stderr, "dim", forOutput(context.stderr, line)));
  }
}
