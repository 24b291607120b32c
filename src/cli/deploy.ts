import { setTimeout as delay } from "node:timers/promises";
import type { Context } from "./context.ts";
import type { Deployment } from "./deployment.ts";
import { Failure } from "./failure.ts";
import { type Gateway, refused } from "./gateway.ts";
import { coloured, printJson } from "./output.ts";
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

/** Deploys at once; fails with all that went wrong when every one has ended. */
export async function deployAll(
  context: Context,
  gateway: Gateway,
  all: readonly Deployment[],
  options: DeployOptions,
): Promise<void> {
  const lines = statusLines(
    context,
    all.map((d) => d.service),
  );
  const results = await Promise.all(
    all.map(async (d) => {
      const url = `${gateway.url}/function/${publicName(d.service, d.namespace)}`;
      const began = performance.now();
      try {
        lines.set(d.service, "deploying");
        const tell = (text: string) => lines.set(d.service, text);
        const how = await told(context, gateway, d, tell, () => send(gateway, d, options));
        if (options.wait) await untilReady(context, gateway, d, options.waitMs, tell);
        const seconds = ((performance.now() - began) / 1000).toFixed(1);
        const state = options.wait ? "ready" : "accepted";
        lines.end(d.service, `${coloured(context, context.stderr, "green", state)} ${url} (${how}, ${seconds} s)`);
        return { name: d.service, url, status: state };
      } catch (e) {
        if (!(e instanceof Failure)) throw e;
        lines.end(d.service, `${coloured(context, context.stderr, "red", "failed")} ${e.message}`);
        return { name: d.service, url, status: "failed", error: e.message };
      }
    }),
  );
  if (options.json) printJson(context, results);
  const failed = results.filter((r) => r.status === "failed");
  if (failed.length === 0) return;
  // a terminal's lines may have cut the reasons
  const reasons = context.stderr.isTTY ? failed.map((r) => `\n${r.name}: ${r.error}`).join("") : "";
  const names = failed.map((r) => r.name).join(", ");
  throw new Failure(`${failed.length} of ${all.length} not deployed: ${names}${reasons}`);
}

/** Does the work; on a terminal, says meanwhile how far the image is. */
async function told<T>(
  { stderr }: Context,
  gateway: Gateway,
  d: Deployment,
  tell: (text: string) => void,
  work: () => Promise<T>,
): Promise<T> {
  using _ = stderr.isTTY ? tellPull(gateway, d, tell) : undefined;
  return await work();
}

async function send(gateway: Gateway, d: Deployment, { update, replace, timeoutMs }: DeployOptions): Promise<string> {
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
