/** Sleeping functions as the kernel sees them, and calls at random moments around the one at which they are frozen. */
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { Agent, request } from "undici";
import type { World } from "./world.ts";

/** What the kernel says of each replica of a function; v1 and v2. */
export async function freezerStates(world: World, name: string): Promise<("frozen" | "awake")[]> {
  const below = `${world.bridge}/${world.namespace}/${name}.*`;
  const files = [
    ...globSync(`/sys/fs/cgroup/freezer/${below}/freezer.state`),
    ...globSync(`/sys/fs/cgroup/${below}/cgroup.freeze`),
  ];
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8").catch(() => "")));
  return texts
    .filter((text) => text !== "")
    .map((text) => (/^(FROZEN|FREEZING|1)$/.test(text.trim()) ? "frozen" : "awake"));
}

export interface RaceResult {
  calls: number;
  /** Calls whose function was frozen, or being frozen, a moment before they were sent. */
  asleep: number;
  /** Everything that was not the right answer in time. */
  failures: string[];
  /** Ms, of calls that found it awake and asleep. */
  latency: { awake: number[]; asleep: number[] };
}

/**
 * Calls each function in turn, one call at a time, after pauses around its idle time. A function that is frozen with
 * its request in flight would stay so, because nobody else calls it: the call would run into `patienceMs`.
 */
export async function freezeRace(
  world: World,
  functions: readonly { path: string; expect: string; body?: string }[],
  { idleMs, calls, patienceMs = 10_000 }: { idleMs: number; calls: number; patienceMs?: number },
): Promise<RaceResult> {
  const result: RaceResult = { calls: 0, asleep: 0, failures: [], latency: { awake: [], asleep: [] } };
  const agent = new Agent({ headersTimeout: patienceMs, bodyTimeout: patienceMs });
  const one = async ({ path, expect, body }: (typeof functions)[number]) => {
    const name = path.split("/")[0]!;
    for (let i = 0; i < calls; i++) {
      await delay(Math.random() * 2 * idleMs);
      const sleeps = (await freezerStates(world, name)).includes("frozen");
      const begin = performance.now();
      try {
        const method = body === undefined ? "GET" : "POST";
        const answer = await request(`${world.url}/function/${path}`, {
          dispatcher: agent,
          method,
          body: body ?? null,
        });
        const text = await answer.body.text();
        if (answer.statusCode !== 200 || text !== expect) result.failures.push(`${path}: ${answer.statusCode} ${text}`);
      } catch (e) {
        result.failures.push(`${path} after ${Math.round(performance.now() - begin)} ms: ${e}`);
      }
      result.calls++;
      if (sleeps) result.asleep++;
      result.latency[sleeps ? "asleep" : "awake"].push(performance.now() - begin);
    }
  };
  await Promise.all(functions.map(one));
  await agent.close();
  return result;
}
