import type { Context } from "./context.ts";
import type { Subject } from "./deploy.ts";
import { Failure } from "./failure.ts";
import { followLines } from "./follow.ts";
import type { Gateway } from "./gateway.ts";
import type { Job, Plan } from "./jobs.ts";
import { coloured, forOutput, print, remark } from "./output.ts";
import { runJobs } from "./run-jobs.ts";
import { Watch } from "./watch.ts";

export interface DevOptions {
  readonly verbose: boolean;
  readonly quiet: boolean;
  /** Shows what the functions write. */
  readonly logs: boolean;
}

/**
 * Does what the plan says, then again for whatever has changed, until Ctrl-C. What fails is told and tried again with
 * the next change; only a first plan that cannot be read ends it.
 */
export async function keepUp(
  context: Context,
  open: (plan: Plan) => Promise<Gateway>,
  replan: () => Promise<Plan>,
  { verbose, quiet, logs }: DevOptions,
): Promise<{ gateway: Gateway; jobs: readonly Job[] }> {
  const { signal } = context;
  let plan = await replan();
  const gateway = await open(plan);
  const tailed = new Set<string>();
  let watch: Watch | undefined;
  try {
    for (let jobs = plan.jobs; ; ) {
      watch ??= await Watch.open(sourcesOf(plan));
      await told(context, runJobs(context, gateway, jobs, { json: false, quiet, verbose, live: !logs }));
      if (logs) for (const job of plan.jobs) tail(context, gateway, job, tailed);
      const changed = await watch.next(signal);
      if (plan.file && changed.has(plan.file)) {
        const next = await told(context, replan());
        watch[Symbol.dispose]();
        watch = undefined;
        if (next) plan = next;
        jobs = next ? plan.jobs : [];
      } else jobs = plan.jobs.filter((job) => job.sources.some((source) => changed.has(source)));
    }
  } catch (e) {
    if (!signal.aborted) throw e;
    return { gateway, jobs: plan.jobs };
  } finally {
    watch?.[Symbol.dispose]();
  }
}

const sourcesOf = ({ jobs, file }: Plan): string[] => [...jobs.flatMap((job) => job.sources), ...(file ? [file] : [])];

/** What it gives; a failure is told, and is nothing. */
async function told<T>(context: Context, work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (e) {
    if (!(e instanceof Failure)) throw e;
    remark(context, coloured(context, context.stderr, "red", forOutput(context.stderr, e.message)));
    return undefined;
  }
}

/** Writes a function's lines to standard output, each behind its name. */
function tail(context: Context, gateway: Gateway, { name, namespace }: Subject, tailed: Set<string>): void {
  const key = `${name}.${namespace ?? ""}`;
  if (tailed.has(key)) return;
  tailed.add(key);
  const { stdout } = context;
  const run = async () => {
    const head = coloured(context, stdout, "dim", `${name} |`);
    for await (const text of followLines(context, gateway, { name, namespace }, Date.now() - 1_000))
      print(context, `${head} ${forOutput(stdout, text)}`);
  };
  void run();
}
