import { setTimeout as delay } from "node:timers/promises";
import { refused } from "./answers.ts";
import type { Context } from "./context.ts";
import type { Deployment } from "./deployment.ts";
import { Failure } from "./failure.ts";
import type { Gateway } from "./gateway.ts";
import { printJson } from "./output.ts";
import { tellPull } from "./pull-progress.ts";
import { getFunction, publicName, settled } from "./status.ts";
import { statusLines } from "./status-lines.ts";

export interface DeployOptions {
  /** Updates what is there; otherwise a function must be new. */
  readonly update: boolean;
  /** Removes first what is there. */
  readonly replace: boolean;
  readonly wait: boolean;
  readonly waitMs: number;
  /** Of a request: the gateway answers when it has the image. */
  readonly timeoutMs: number;
  readonly json: boolean;
}

/** A function that something is done for. */
export interface Subject {
  readonly name: string;
  readonly namespace?: string | undefined;
}

/** What has become of one. */
export interface Done {
  /** A word, such as `ready`. */
  readonly state: string;
  /** In more words; nothing when there is nothing to say. */
  readonly how?: string;
  /** Further fields of the result in JSON. */
  readonly more?: Readonly<Record<string, unknown>>;
}

/** Deploys at once; fails with all that went wrong when every one has ended. */
export async function deployAll(
  context: Context,
  gateway: Gateway,
  all: readonly Deployment[],
  options: DeployOptions,
): Promise<void> {
  const subjects = all.map((d) => ({ name: d.service, namespace: d.namespace, wanted: d }));
  await forEachFunction(context, gateway, subjects, options, ({ wanted }, tell) =>
    deployOne(context, gateway, wanted, options, tell),
  );
}

/** Deploys and, unless told otherwise, waits until it can be called. `tell` hears how far it is. */
export async function deployOne(
  context: Context,
  gateway: Gateway,
  d: Deployment,
  options: Omit<DeployOptions, "json">,
  tell: (text: string) => void,
): Promise<Done> {
  tell("deploying");
  const how = await sendTelling(context, gateway, d, options, tell);
  if (options.wait) await untilReady(context, gateway, d, options.waitMs, tell);
  return { state: options.wait ? "ready" : "accepted", how };
}

/**
 * Does something for each function, all at once, on a line for each; fails with all that went wrong when every one has
 * ended. `live: false` is for lines that others may write in between; `quiet` tells failures only.
 */
export async function forEachFunction<T extends Subject>(
  context: Context,
  gateway: Gateway,
  all: readonly T[],
  { json, live = true, quiet = false }: { json: boolean; live?: boolean; quiet?: boolean },
  work: (subject: T, tell: (text: string) => void) => Promise<Done>,
): Promise<void> {
  const { stderr } = context;
  const names = all.map(({ name }) => name);
  const lines = statusLines(context, names, live && !quiet);
  const results = await Promise.all(
    all.map(async (subject) => {
      const { name, namespace } = subject;
      const url = `${gateway.url}/function/${publicName(name, namespace)}`;
      const began = performance.now();
      try {
        const { state, how, more } = await work(subject, (text) => lines.set(name, text));
        const seconds = `${((performance.now() - began) / 1000).toFixed(1)} s`;
        if (!quiet) lines.end(name, `${url} (${how ? `${how}, ` : ""}${seconds})`, { word: state, colour: "green" });
        return { name, url, status: state, ...more };
      } catch (e) {
        if (!(e instanceof Failure)) throw e;
        lines.end(name, e.message, { word: "failed", colour: "red" });
        return { name, url, status: "failed", error: e.message };
      }
    }),
  );
  if (json) printJson(context, results);
  const failed = results.filter((r) => r.status === "failed");
  if (failed.length === 0) return;
  // a terminal's lines may have cut the reasons
  const reasons = stderr.isTTY ? failed.map((r) => `\n${r.name}: ${"error" in r ? r.error : ""}`).join("") : "";
  throw new Failure(
    `${failed.length} of ${all.length} not deployed: ${failed.map((r) => r.name).join(", ")}${reasons}`,
  );
}

/** On a terminal, says meanwhile how far the image is. */
async function sendTelling(
  { stderr }: Context,
  gateway: Gateway,
  d: Deployment,
  options: Omit<DeployOptions, "json">,
  tell: (text: string) => void,
): Promise<string> {
  using _ = stderr.isTTY ? tellPull(gateway, d, tell) : undefined;
  return await send(gateway, d, options);
}

async function send(
  gateway: Gateway,
  d: Deployment,
  { update, replace, timeoutMs }: Omit<DeployOptions, "json">,
): Promise<string> {
  if (replace) {
    const body = { functionName: d.service, ...(d.namespace && { namespace: d.namespace }) };
    await gateway.request("DELETE", "/system/functions", { body });
  }
  // the first answer tells whether the function is there; a new one is made by POST (contracts/cli.md §3.2)
  const options = { body: d, timeoutMs };
  const first = await gateway.request(update ? "PUT" : "POST", "/system/functions", options);
  const isNew = update && first.status === 404;
  const reply = isNew ? await gateway.request("POST", "/system/functions", options) : first;
  if (reply.status !== 200 && reply.status !== 202) throw refused(gateway.url, reply);
  return update && !isNew ? "updated" : "created";
}

/** Until it can be called; fails when it cannot come up, or after `waitMs`. */
async function untilReady(
  context: Context,
  gateway: Gateway,
  d: Deployment,
  waitMs: number,
  tell: (text: string) => void,
): Promise<void> {
  const end = performance.now() + waitMs;
  for (let pause = 50; ; pause = Math.min(pause * 1.5, 1000)) {
    const status = await getFunction(gateway, d.service, d.namespace);
    if (status.state === "Failed")
      throw new Failure(status.reason ?? "it does not come up; nap logs shows what it says");
    if (status.state ? settled.has(status.state) : (status.availableReplicas ?? 0) > 0) return;
    tell(`${status.state ?? "starting"}${status.reason ? `: ${status.reason}` : ""}`);
    if (performance.now() > end)
      throw new Failure(
        `it is not ready after ${waitMs / 1000} s (--wait-timeout); nap describe ${d.service} says why`,
      );
    await delay(pause, undefined, { signal: context.signal });
  }
}
