import { AckPolicy, DeliverPolicy } from "@nats-io/jetstream";
import { createInbox, type Msg, type NatsConnection, nanos } from "@nats-io/transport-node";
import type { Nats } from "./connection.ts";
import type { Layout, StreamName } from "./layout.ts";

/**
 * Ms of silence that end an answer without an end: a server that has miscounted, as 2.9 does when messages were removed
 * under a consumer, waits for those that are missing.
 */
const silenceMs = 300;
/** Ms after which the server removes a consumer that nobody reads from. */
const idleMs = 5000;
/** Messages that are asked for at once. */
const pageSize = 500;

/** `silence`: the server did not say that there is no more; `nobody`: there is no such consumer. */
export type PullEnd = "all" | "silence" | "nobody";

/**
 * What a consumer has at this moment, `batch` at most. What the connection breaks off is delivered again later, as all
 * is that nobody acknowledges.
 */
export async function pull(
  nc: NatsConnection,
  stream: string,
  consumer: string,
  batch: number,
): Promise<{ found: Msg[]; end: PullEnd }> {
  const found: Msg[] = [];
  const { promise: ended, resolve: end } = Promise.withResolvers<PullEnd>();
  // a server that is slow answers before it answers this
  const flushed = () => end("silence");
  const timer = setTimeout(() => void nc.flush().then(flushed, flushed), silenceMs);
  const subscription = nc.subscribe(createInbox(), {
    callback: (error, msg) => {
      if (error) return end("all");
      const status = msg.headers?.code ?? 0;
      if (status === 503) return end("nobody");
      if (status >= 400) return end("all"); // 404 and 408: there is no more
      if (status !== 0) return;
      timer.refresh();
      if (found.push(msg) === batch) end("all");
    },
  });
  const subject = `$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`;
  nc.publish(subject, JSON.stringify({ batch, no_wait: true }), { reply: subscription.getSubject() });
  const how = await ended;
  clearTimeout(timer);
  // with that the server forgets what it still waits for, and nothing is delivered here in vain
  if (!nc.isClosed()) subscription.unsubscribe();
  return { found, end: how };
}

/** The messages of a stream whose keys fit, oldest first, `limit` at most, without their payloads. */
export async function scan(
  nats: Nats,
  layout: Layout,
  name: StreamName,
  filter: string,
  limit: number,
): Promise<Msg[]> {
  const stream = layout.stream(name);
  await using reader = await openReader(nats, layout, name, filter);
  const found: Msg[] = [];
  const wanted = Math.min(limit, reader.count);
  while (found.length < wanted) {
    const page = await pull(nats.nc, stream, reader.name, Math.min(pageSize, wanted - found.length));
    if (page.found.length === 0) break;
    found.push(...page.found);
  }
  return found;
}

/** How many messages of a stream have keys that fit. */
export async function count(nats: Nats, layout: Layout, name: StreamName, filter: string): Promise<number> {
  await using reader = await openReader(nats, layout, name, filter);
  return reader.count;
}

/** A consumer that only looks; the server removes it when nobody disposes of it. */
async function openReader({ jsm }: Nats, layout: Layout, name: StreamName, filter: string) {
  const stream = layout.stream(name);
  const { name: consumer, num_pending } = await jsm.consumers.add(stream, {
    filter_subject: layout.subject(name, filter),
    ack_policy: AckPolicy.None,
    deliver_policy: DeliverPolicy.All,
    headers_only: true,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: nanos(idleMs),
  });
  return {
    name: consumer,
    count: num_pending,
    async [Symbol.asyncDispose]() {
      void jsm.consumers.delete(stream, consumer).catch(() => {});
    },
  };
}
