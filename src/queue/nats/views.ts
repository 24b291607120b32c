import { mapBounded } from "../../base/bounded.ts";
import type { Depth, Lane, MessageFilter, MessageInfo } from "../store.ts";
import type { Nats } from "./connection.ts";
import { deliveryOf, type Info, infoOf, type Key, keyFilter, type Layout, partsOf } from "./layout.ts";
import { scan } from "./pull.ts";
import type { Run } from "./runs.ts";

/** Requests to the server at a time. */
const atOnce = 32;
/** Records of attempts that are counted; with more messages than that waiting for another attempt, only the first are. */
const maxRuns = 5000;

export interface Found {
  readonly key: Key;
  readonly seq: number;
  readonly info: Info;
}

/** Messages of a stream that fit, oldest first. */
export async function find(
  nats: Nats,
  layout: Layout,
  name: "messages" | "dead",
  filter: Partial<MessageFilter>,
  limit = Number.POSITIVE_INFINITY,
): Promise<Found[]> {
  const found = (await scan(nats, layout, name, keyFilter(filter), limit)).map((msg) => ({
    key: layout.keyOf(msg.subject),
    seq: deliveryOf(msg).seq,
    info: infoOf(msg.headers),
  }));
  return filter.callId === undefined ? found : found.filter(({ info }) => info.callId === filter.callId);
}

/** What is known of attempts, by key. */
export async function findRuns(
  nats: Nats,
  layout: Layout,
  filter: Partial<MessageFilter> = {},
): Promise<Map<Key, Run & { record: number }>> {
  const found = await scan(nats, layout, "runs", keyFilter(filter), maxRuns);
  return new Map(
    found.map((msg) => [layout.keyOf(msg.subject), { ...infoOf<Run>(msg.headers), record: deliveryOf(msg).seq }]),
  );
}

/** See QueueStore.list. */
export async function list(nats: Nats, layout: Layout, filter: MessageFilter): Promise<MessageInfo[]> {
  const { state, limit } = filter;
  const dead = state === undefined || state === "dead" ? await find(nats, layout, "dead", filter, limit) : [];
  const shown = dead.map(({ key, info }) => deadInfo(key, info));
  if (state !== "dead") {
    const runs = await findRuns(nats, layout, filter);
    const running = [...runs.values()].filter((run) => run.state === "running").length;
    const live =
      state === "running"
        ? await findRunning(nats, layout, runs)
        : await find(nats, layout, "messages", filter, state === "queued" ? limit + running : limit);
    for (const { key, info } of live) {
      const one = liveInfo(key, info, runs.get(key));
      if ((state === undefined || one.state === state) && (filter.callId ?? one.callId) === one.callId) shown.push(one);
    }
  }
  return shown.sort((a, b) => a.created - b.created).slice(0, limit);
}

async function findRunning(
  { jsm }: Nats,
  layout: Layout,
  runs: ReadonlyMap<Key, Run>,
): Promise<{ key: Key; info: Info }[]> {
  const running = [...runs].filter(([, run]) => run.state === "running").map(([key]) => key);
  const found = await mapBounded(running, atOnce, async (key) => {
    const last_by_subj = layout.subject("messages", key);
    const message = await jsm.direct.getMessage(layout.stream("messages"), { last_by_subj });
    return message ? [{ key, info: infoOf(message.header) }] : [];
  });
  return found.flat();
}

function liveInfo(key: Key, info: Info, run: Run | undefined): MessageInfo {
  const { lane, fn } = partsOf(key);
  const { callId, target, bytes, callback, created } = info;
  const { state = "queued", attempts = 0, due = created, status = null, error = null } = run ?? {};
  return { callId, lane, fn, target, state, attempts, bytes, callback, created, due, status, error };
}

function deadInfo(key: Key, info: Info): MessageInfo {
  const { lane, fn } = partsOf(key);
  const { callId, target, bytes, callback, created, attempts = 0, status = null, error = null } = info;
  return { callId, lane, fn, target, state: "dead", attempts, bytes, callback, created, due: created, status, error };
}

/** See QueueStore.depths. What waits is counted by the consumers, as the server knows their numbers without looking. */
export async function depths(nats: Nats, layout: Layout): Promise<Depth[]> {
  const counts = new Map<string, { -readonly [K in keyof Depth]: Depth[K] }>();
  const of = (lane: Lane, fn: string) => {
    const key = `${lane} ${fn}`;
    const depth = counts.get(key) ?? { lane, fn, queued: 0, running: 0, dead: 0, oldest: null };
    counts.set(key, depth);
    return depth;
  };
  const stream = layout.stream("messages");
  for await (const { name, num_pending, num_ack_pending } of nats.jsm.consumers.list(stream)) {
    const work = layout.consumerOf(name);
    if (work && num_pending + num_ack_pending > 0) of(work.lane, work.fn).queued = num_pending + num_ack_pending;
  }
  for (const [key, run] of await findRuns(nats, layout)) {
    const { lane, fn } = partsOf(key);
    const depth = of(lane, fn);
    if (run.state !== "running" || depth.queued === 0) continue;
    depth.queued--;
    depth.running++;
  }
  const dead = layout.stream("dead");
  const { state } = await nats.jsm.streams.info(dead, { subjects_filter: layout.subject("dead", ">") });
  for (const subject of Object.keys(state.subjects ?? {})) {
    const { lane, fn } = partsOf(layout.keyOf(subject));
    of(lane, fn).dead++;
  }
  const found = [...counts.values()].filter(({ queued, running, dead: gone }) => queued + running + gone > 0);
  await mapBounded(found, atOnce, async (depth) => {
    if (depth.queued + depth.running === 0) return;
    const next_by_subj = layout.subject("messages", `${depth.lane}.${depth.fn}.>`);
    const first = await nats.jsm.direct.getMessage(stream, { seq: 1, next_by_subj });
    if (first) depth.oldest = infoOf(first.header).created;
  });
  return found;
}
