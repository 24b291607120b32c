import { AckPolicy, type ConsumerConfig, DeliverPolicy } from "@nats-io/jetstream";
import { createInbox, type Msg, type NatsConnection, nanos } from "@nats-io/transport-node";
import type { Nats } from "./connection.ts";
import type { Layout, StreamName } from "./layout.ts";

/**
 * Ms of silence that end an answer without an end: a server that has miscounted, as 2.9 does when messages were removed
 * under a consumer, waits for those that are missing.
 */
const silenceMs = 500;
/** Ms for which what comes after that is still heard. */
const lateMs = 5000;
/** Messages that are asked for at once. */
const pageSize = 500;

/**
 * What a consumer has at this moment, `batch` at most. What the connection breaks off is delivered again later, as all
 * is that nobody acknowledges. Null when there is no such consumer. `late` is given what comes after the end.
 */
export async function pull(
  nc: NatsConnection,
  stream: string,
  consumer: string,
  batch: number,
  late: (msg: Msg) => void = () => {},
): Promise<Msg[] | null> {
  const found: Msg[] = [];
  const { promise: ended, resolve: end } = Promise.withResolvers<"all" | "silence" | "nobody">();
  let isOver = false;
  const timer = setTimeout(() => end("silence"), silenceMs);
  const subscription = nc.subscribe(createInbox(), {
    callback: (error, msg) => {
      if (error) return end("all");
      const status = msg.headers?.code ?? 0;
      if (status === 503) return end("nobody");
      if (status >= 400) return end("all"); // 404 and 408: there is no more
      if (status !== 0) return;
      if (isOver) return late(msg);
      timer.refresh();
      if (found.push(msg) === batch) end("all");
    },
  });
  const subject = `$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`;
  nc.publish(subject, JSON.stringify({ batch, no_wait: true }), { reply: subscription.getSubject() });
  const how = await ended;
  isOver = true;
  clearTimeout(timer);
  const leave = () => void (nc.isClosed() || subscription.unsubscribe());
  if (how === "silence") setTimeout(leave, lateMs).unref();
  else leave();
  return how === "nobody" ? null : found;
}

/** The messages of a stream whose keys fit, oldest first, `limit` at most, without their payloads. */
export async function scan(
  { nc, jsm }: Nats,
  layout: Layout,
  name: StreamName,
  filter: string,
  limit: number,
): Promise<Msg[]> {
  const stream = layout.stream(name);
  const config: Partial<ConsumerConfig> = {
    filter_subject: layout.subject(name, filter),
    ack_policy: AckPolicy.None,
    deliver_policy: DeliverPolicy.All,
    headers_only: true,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: nanos(lateMs),
  };
  const consumer = await jsm.consumers.add(stream, config);
  const found: Msg[] = [];
  const wanted = Math.min(limit, consumer.num_pending);
  while (found.length < wanted) {
    const page = await pull(nc, stream, consumer.name, Math.min(pageSize, wanted - found.length));
    if (!page || page.length === 0) break;
    found.push(...page);
  }
  void jsm.consumers.delete(stream, consumer.name).catch(() => {}); // else it ends by itself
  return found;
}
