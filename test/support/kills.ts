import { setTimeout as delay } from "node:timers/promises";
import { eventually, type World } from "./world.ts";

export interface KillsOptions {
  /** Of asynchronous calls of a function whose program writes the body into its log. */
  readonly path: string;
  readonly name: string;
  readonly kills: number;
  readonly settings: Record<string, string>;
  /** Waits until napd is to be killed; told how many calls were accepted so far. */
  readonly wait: (accepted: () => number) => Promise<unknown>;
}

export interface KillsResult {
  readonly accepted: number;
  /** Calls that got their 202 and never ran. */
  readonly lost: readonly string[];
  /** Runs beyond the first one of a call. */
  readonly repeated: number;
  /** Runs of calls whose caller never got an answer, because napd was killed: nobody was promised anything. */
  readonly unanswered: number;
}

/** Kills napd again and again while four callers send asynchronous calls, and compares what was accepted with what ran. */
export async function killUnderLoad(world: World, options: KillsOptions): Promise<KillsResult> {
  const { path, name, kills, settings, wait } = options;
  const accepted = new Set<string>();
  let isOver = false;
  const callers = Array.from({ length: 4 }, async (_, caller) => {
    for (let i = 0; !isOver; i++) {
      const id = `k-${caller}-${i}`;
      const init = { method: "POST", body: `${id}\n`, headers: { "X-Call-Id": id } };
      const status = await world.call(`/async-function/${path}`, init).then(
        (answer) => answer.status,
        () => 0,
      );
      if (status === 202) accepted.add(id);
      await delay(status === 202 ? 5 : 20);
    }
  });
  try {
    for (let kill = 0; kill < kills; kill++) {
      await wait(() => accepted.size);
      await world.napd().kill9();
      await world.start(settings);
    }
  } finally {
    isOver = true;
    await Promise.all(callers);
  }
  const queued = async () => JSON.parse((await world.api("GET", "/system/queue")).text) as unknown[];
  await eventually(queued, (calls) => calls.length === 0, 120_000);
  const { text } = await world.api("GET", `/system/logs?name=${name}&follow=false&tail=-1`);
  const runs = [...text.matchAll(/k-\d-\d+/g)].map(([id]) => id);
  const ran = new Set(runs);
  return {
    accepted: accepted.size,
    lost: [...accepted].filter((id) => !ran.has(id)),
    repeated: runs.length - ran.size,
    unanswered: [...ran].filter((id) => !accepted.has(id)).length,
  };
}
