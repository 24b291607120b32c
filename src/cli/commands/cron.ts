import { parsed } from "../answers.ts";
import {
  askCron,
  type CronFunction,
  type CronRun,
  findCron,
  listCron,
  nextOf,
  outcomeOf,
  waitForRun,
} from "../cron.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { duration, type GatewayFlags, gatewayFlags, namespaceFlag, wholeNumber } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { forOutput, print, printJson, printTable } from "../output.ts";
import { age, until } from "../times.ts";

interface Flags extends GatewayFlags {
  namespace?: string;
  wait?: boolean;
  waitTimeout?: number;
  limit?: number;
  quiet?: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  command.description("functions that are called by the clock, with annotations topic and schedule; on napd alone");
  const sub = (name: string, ...aliases: string[]) =>
    namespaceFlag(gatewayFlags(command.command(name).aliases(aliases))).option("-j, --json", "as JSON");

  sub("list", "ls")
    .description("functions with their schedules, the next run and the last one")
    .option("-q, --quiet", "names only")
    .action(async (flags: Flags) => {
      const all = await listCron(await openGateway(context, flags), flags.namespace);
      if (flags.json) return printJson(context, all);
      if (flags.quiet) for (const f of all) print(context, forOutput(context.stdout, f.name));
      else printTable(context, ["FUNCTION", "SCHEDULE", "NEXT", "LAST", "RESULT"], all.map(row));
    });

  sub("describe", "inspect")
    .description("schedules of a function, and what is wrong with them")
    .argument("<function>")
    .action(async (name: string, flags: Flags) => {
      const found = await findCron(await openGateway(context, flags), name, flags.namespace);
      if (flags.json) return printJson(context, found);
      for (const line of describe(found)) print(context, forOutput(context.stdout, line));
    });

  sub("run")
    .description("call a function now, as its schedule would")
    .argument("<function>")
    .option("--wait", "wait for the end of it; exit code 1 if it fails")
    .option("--wait-timeout <duration>", "how long to wait", duration, 120_000)
    .action(async (name: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const namespace = flags.namespace || undefined;
      const rest = `/${encodeURIComponent(name)}/run`;
      const absent = `function ${name} does not exist or has no schedule; nap cron list shows those that have`;
      const reply = await askCron(gateway, ["POST", rest], [202], { query: { namespace }, absent });
      const begun = parsed<CronRun>(`${gateway.url}/system/cron${rest}`, reply, "object");
      const run = flags.wait
        ? await waitForRun(context, gateway, { name, namespace }, begun, flags.waitTimeout!)
        : begun;
      if (flags.json) printJson(context, run);
      else if (run.result === "running") print(context, forOutput(context.stdout, `${name} runs, call ${run.callId}`));
      else if (run.result !== "failed") print(context, `${name} ran${secondsOf(run, " in ")}: ${run.result}`);
      if (run.result === "failed") throw new Failure(`${name}: ${outcomeOf(run)}; nap logs ${name} may say more`);
    });

  sub("history")
    .description("the last runs, latest first: of a function, or of all")
    .argument("[function]")
    .option("--limit <number>", "at most so many", wholeNumber)
    .action(async (name: string | undefined, flags: Flags) => {
      if (flags.limit !== undefined && flags.limit < 1) throw wrongUsage("--limit takes a number from 1");
      const gateway = await openGateway(context, flags);
      const all =
        name === undefined
          ? await listCron(gateway, flags.namespace)
          : [await findCron(gateway, name, flags.namespace)];
      const runs = all
        .flatMap((f) => f.runs.map((run) => ({ function: f.name, ...run })))
        .sort((a, b) => (timeOf(a) < timeOf(b) ? 1 : -1))
        .slice(0, flags.limit);
      if (flags.json) return printJson(context, runs);
      const rows = runs.map((r) => [r.function, timeOf(r), r.trigger, outcomeOf(r), secondsOf(r), r.callId]);
      printTable(context, ["FUNCTION", "TIME", "BY", "RESULT", "TOOK", "CALL"], rows);
    });
};

const timeOf = ({ startedAt, scheduledAt }: CronRun): string => startedAt ?? scheduledAt ?? "";
const secondsOf = ({ duration }: CronRun, before = ""): string => (duration === null ? "" : `${before}${duration} s`);

function row(f: CronFunction): string[] {
  const last = f.runs[0];
  const schedule = f.schedules.map((s) => s.expression).join("; ");
  return [
    f.name,
    [schedule, f.errors.length > 0 ? "cannot be read" : ""].filter(Boolean).join("; "),
    until(nextOf(f)),
    last ? `${age(timeOf(last))} ago` : "",
    last ? outcomeOf(last) : "",
  ];
}

function describe(f: CronFunction): string[] {
  const last = f.runs[0];
  const lines: [string, string][] = [
    ["Function", `${f.name}.${f.namespace}`],
    ...f.schedules.map(({ expression, timeZone, next }): [string, string] => [
      "Schedule",
      `${expression}${timeZone ? ` (${timeZone})` : ""}, next ${next ?? "never"}`,
    ]),
    ...f.errors.map((error): [string, string] => ["Error", error]),
    ["Overlap", f.overlap === "skip" ? "skip: not begun while one goes on" : f.overlap],
    ["Missed", f.missed === "once" ? "once: made up by one run" : f.missed],
    ["Async", f.async ? "through the queue" : "no"],
  ];
  if (last)
    lines.push(["Last run", `${timeOf(last)}, ${outcomeOf(last)}${secondsOf(last, ", ")}, call ${last.callId}`]);
  return lines.map(([title, value]) => `${`${title}:`.padEnd(11)}${value}`);
}
