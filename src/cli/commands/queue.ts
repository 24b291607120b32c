import { parsed } from "../answers.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { duration, type GatewayFlags, gatewayFlags, namespaceFlag, wholeNumber } from "../flags.ts";
import { type Gateway, openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { askNapd, type NapdApi } from "../napd-only.ts";
import { forOutput, print, printJson, printTable, remark } from "../output.ts";
import {
  askQueue,
  findResult,
  getCall,
  pathOf,
  type QueueEntry,
  reasonOf,
  showResult,
  waitForResult,
} from "../queue.ts";
import { publicName } from "../status.ts";
import { age, until } from "../times.ts";

interface Flags extends GatewayFlags {
  namespace?: string;
  function?: string;
  state?: string;
  limit?: number;
  quiet?: boolean;
  all?: boolean;
  wait?: boolean;
  waitTimeout?: number;
  json?: boolean;
}

/** The most that a gateway lists at once. */
const pageSize = 1000;

export const define: Define = (command, context) => {
  command.description("asynchronous calls that wait, run or were given up; on napd alone");
  const sub = (name: string, ...aliases: string[]) =>
    gatewayFlags(command.command(name).aliases(aliases)).option("-j, --json", "as JSON");

  namespaceFlag(sub("list", "ls").argument("[function]"))
    .description("calls in the queue, oldest first")
    .option("--state <state>", "queued, running or dead: given up")
    .option("--limit <number>", `at most so many, up to ${pageSize}`, wholeNumber, 100)
    .option("-q, --quiet", "ids only")
    .action(async (name: string | undefined, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const all = await list(gateway, { ...flags, ...(name !== undefined && { function: name }) });
      if (flags.json) return printJson(context, all);
      if (flags.quiet)
        for (const id of new Set(all.map((e) => e.callId))) print(context, forOutput(context.stdout, id));
      else printTable(context, ["CALL", "FUNCTION", "STATE", "TRIES", "AGE", "LAST"], all.map(rowOf(all)));
      if (all.length === flags.limit) remark(context, `these are the oldest ${all.length}; --limit shows more`);
    });

  sub("describe", "inspect")
    .description("all that is known of a call")
    .argument("<call>", "id of the call, as invoke --async tells it")
    .action(async (id: string, flags: Flags) => {
      const entries = await getCall(await openGateway(context, flags), id);
      if (flags.json) return printJson(context, entries);
      for (const [i, entry] of entries.entries()) {
        if (i > 0) print(context, "");
        for (const line of describe(entry)) print(context, forOutput(context.stdout, line));
      }
    });

  steering("retry", "queue calls again that were given up", "queued again", ["dead"], async (gateway, id) => {
    await askQueue(gateway, ["POST", `${pathOf(id)}/retry`], [202]);
  });
  const remove = async (gateway: Gateway, id: string) => {
    await askQueue(gateway, ["DELETE", pathOf(id)], [202]);
  };
  steering("drop", "forget calls that were given up", "dropped", ["dead"], remove);
  steering("cancel", "end calls that wait or run", "cancelled", ["queued", "running"], remove);

  namespaceFlag(sub("stats"))
    .description("how many calls there are of each function")
    .action(async (flags: Flags) => {
      interface Stats {
        function: string;
        namespace: string;
        kind: string;
        queued: number;
        running: number;
        dead: number;
        oldestAt: string | null;
      }
      const gateway = await openGateway(context, flags);
      const query = { namespace: flags.namespace || undefined };
      const stats: NapdApi = { path: "/system/queue-stats", without: "nap queue list may show what there is" };
      const reply = await askNapd(gateway, stats, ["GET"], [200], { query });
      const all = parsed<Stats[]>(gateway.url + stats.path, reply, "objects");
      if (flags.json) return printJson(context, all);
      const nameOf = namesIn(all);
      const rows = all.map((s) => [nameOf(s), s.queued, s.running, s.dead, age(s.oldestAt)]);
      printTable(context, ["FUNCTION", "QUEUED", "RUNNING", "DEAD", "OLDEST"], rows);
    });

  sub("result")
    .description("what a call came to, as long as it is kept: its body goes to standard output")
    .argument("<call>", "id of the call")
    .option("--wait", "wait until there is one")
    .option("--wait-timeout <duration>", "how long to wait", duration, 120_000)
    .action(async (id: string, flags: Flags) => {
      const gateway = await openGateway(context, flags);
      const found = flags.wait
        ? await waitForResult(context, gateway, id, flags.waitTimeout!)
        : await findResult(gateway, id);
      if (!Array.isArray(found)) return showResult(context, id, found, flags);
      throw new Failure(`call ${id} has no result yet: it is ${found[0]?.state}; --wait waits for it`);
    });

  /** A command for calls by their ids, or for all of some states. */
  function steering(
    name: string,
    description: string,
    done: string,
    states: readonly QueueEntry["state"][],
    act: (gateway: Gateway, id: string) => Promise<void>,
  ): void {
    namespaceFlag(sub(name).argument("[calls...]", "ids"))
      .description(description)
      .option("--all", "all of them")
      .option("--function <name>", "with --all: those of one function")
      .action(async (given: string[], flags: Flags) => {
        if (given.length > 0 === (flags.all ?? false)) throw wrongUsage("name the calls, or give --all");
        const gateway = await openGateway(context, flags);
        const one = async (callId: string) => {
          try {
            if (!flags.all) await expectState(gateway, callId, states, name);
            await act(gateway, callId);
          } catch (e) {
            if (!(e instanceof Failure)) throw e;
            return { callId, status: "failed", error: e.message };
          }
          if (!flags.json) print(context, forOutput(context.stdout, `${callId} ${done}`));
          return { callId, status: done };
        };
        const results = flags.all ? await onAll(gateway, states, flags, one) : await inTurn(given, one);
        if (results.length === 0) remark(context, "there are none");
        if (flags.json) printJson(context, results);
        const errors = new Set(results.flatMap((r) => ("error" in r ? [r.error] : [])));
        if (errors.size > 0) throw new Failure([...errors].join("\n"));
      });
  }
};

async function list(gateway: Gateway, flags: Flags): Promise<QueueEntry[]> {
  const { namespace, function: fn, state, limit } = flags;
  if (state !== undefined && !["queued", "running", "dead"].includes(state))
    throw wrongUsage(`--state ${state}: it takes queued, running or dead`);
  if (limit !== undefined && (limit < 1 || limit > pageSize)) throw wrongUsage(`--limit takes 1 to ${pageSize}`);
  const query = { namespace: namespace || undefined, function: fn, state, limit: limit?.toString() };
  const reply = await askQueue(gateway, ["GET"], [200], { query });
  return parsed(`${gateway.url}/system/queue`, reply, "objects");
}

/** Works on all calls in one of the states: page by page, because done ones leave the list, and each once. */
async function onAll<R>(
  gateway: Gateway,
  states: readonly string[],
  flags: Flags,
  work: (id: string) => Promise<R>,
): Promise<R[]> {
  const seen = new Set<string>();
  const results: R[] = [];
  for (;;) {
    const pages = await Promise.all(states.map((state) => list(gateway, { ...flags, state, limit: pageSize })));
    const ids = new Set(
      pages
        .flat()
        .map((e) => e.callId)
        .filter((id) => !seen.has(id)),
    );
    for (const id of ids) seen.add(id);
    results.push(...(await inTurn([...ids], work)));
    if (ids.size === 0 || pages.every((page) => page.length < pageSize)) return results;
  }
}

/** Dropping what still runs, or cancelling what is long over, is a mistake that somebody wants to hear of. */
async function expectState(gateway: Gateway, id: string, states: readonly string[], name: string): Promise<void> {
  const found = (await getCall(gateway, id)).map((e) => e.state);
  if (found.some((state) => states.includes(state))) return;
  const instead =
    name === "cancel" ? `it was given up already; nap queue drop ${id}` : `it is ${found[0]}; nap queue cancel ${id}`;
  throw new Failure(`call ${id}: ${instead} removes it`);
}

/** Eight at a time. */
async function inTurn<T, R>(all: readonly T[], work: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const rest = all.entries();
  const worker = async () => {
    for (const [i, one] of rest) results[i] = await work(one);
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return results;
}

/** Names for a table: with their namespaces where there are several. */
function namesIn(all: readonly { namespace: string }[]) {
  const isMixed = new Set(all.map((e) => e.namespace)).size > 1;
  return (e: { function: string; namespace: string; kind: string }): string =>
    publicName(e.function, isMixed ? e.namespace : undefined) + (e.kind === "callback" ? " (callback)" : "");
}

const rowOf =
  (all: readonly QueueEntry[], nameOf = namesIn(all)) =>
  (e: QueueEntry): (string | number)[] => [
    e.callId,
    nameOf(e),
    e.state,
    e.attempts,
    age(e.createdAt),
    [reasonOf(e), e.state === "queued" && e.attempts > 0 ? `next ${until(e.dueAt)}` : ""].filter(Boolean).join(", "),
  ];

function describe(e: QueueEntry): string[] {
  const lines: [string, unknown][] = [
    ["Call", e.callId],
    ["Kind", e.kind],
    ["Function", publicName(e.function, e.namespace)],
    ["State", e.state === "dead" ? "dead: given up" : e.state],
    ["Attempts", e.attempts],
    ["Last status", e.lastStatus],
    ["Last error", e.lastError],
    ["Next attempt", e.dueAt],
    ["Accepted", `${e.createdAt} (${age(e.createdAt)} ago)`],
    ["Path", e.target],
    ["URL", e.url],
    ["Callback", e.callbackUrl],
    ["Size", `${e.bytes} bytes`],
  ];
  return lines
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([title, value]) => `${`${title}:`.padEnd(14)}${value}`);
}
