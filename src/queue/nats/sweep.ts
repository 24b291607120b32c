import { mapBounded } from "../../base/bounded.ts";
import { oldBodies, purgeBody } from "./bodies.ts";
import type { Nats } from "./connection.ts";
import { infoOf, type Key, type Layout, type StreamName } from "./layout.ts";
import { deleteMessage, purgeKey } from "./runs.ts";
import { find, findRuns } from "./views.ts";

const atOnce = 16;
/** Ms after which a body without message is nobody's: whoever brought it is dead by now. */
const orphanAgeMs = 3_600_000;

/** See QueueStore.bury. */
export async function bury(nats: Nats, layout: Layout, before: number, keep: number): Promise<number> {
  const dead = await find(nats, layout, "dead", {});
  const beyond = dead.length - keep;
  const leaving = dead.filter(({ info }, i) => info.created < before || i < beyond);
  const gone = await mapBounded(leaving, atOnce, async ({ seq, info }) => {
    const isOurs = await deleteMessage(nats.jsm, layout.stream("dead"), seq, true);
    if (isOurs && info.body) await purgeBody(nats, layout, info.body.id);
    return isOurs;
  });
  return gone.filter(Boolean).length;
}

/** Removes what a machine or the server left that died between two steps: records and bodies of no message. */
export async function sweep(nats: Nats, layout: Layout, now: number): Promise<void> {
  await mapBounded([...(await findRuns(nats, layout))], atOnce, async ([key, { seq }]) => {
    const message = await at(nats, layout, "messages", key);
    if (message?.seq !== seq) await purgeKey(nats.jsm, layout, "runs", key);
  });
  await mapBounded(await oldBodies(nats, layout, orphanAgeMs, now), atOnce, async ({ id, key }) => {
    for (const name of ["messages", "dead"] as const) {
      const message = await at(nats, layout, name, key);
      if (message && infoOf(message.header).body?.id === id) return;
    }
    await purgeBody(nats, layout, id);
  });
}

/** Asked of the stream's leader: another replica may be behind. */
async function at({ jsm }: Nats, layout: Layout, name: StreamName, key: Key) {
  return jsm.streams.getMessage(layout.stream(name), { last_by_subj: layout.subject(name, key) });
}
