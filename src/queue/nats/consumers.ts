import { AckPolicy, type ConsumerInfo, DeliverPolicy } from "@nats-io/jetstream";
import { nanos } from "@nats-io/transport-node";
import type { Lane } from "../store.ts";
import { isServerError, type Nats } from "./connection.ts";
import type { Layout } from "./layout.ts";
import { count } from "./pull.ts";

/** Of JetStream's errors: a consumer of that name is there, and has other settings; there is none. */
const existsOtherwise = 10148;
const notThere = 10014;
const looks = 3;

/** One consumer for each function and lane, which all machines share: it knows what was delivered and to be again. */
export class Consumers {
  readonly #layout: Layout;
  readonly #ackWaitMs: number;
  #known = new Map<string, Promise<unknown>>();

  /** `ackWaitMs`: after so long without a sign a message is delivered to somebody else. */
  constructor(layout: Layout, ackWaitMs: number) {
    this.#layout = layout;
    this.#ackWaitMs = ackWaitMs;
  }

  /** Nothing is known of a server that has come back. */
  forget(lane?: Lane, fn?: string): void {
    if (lane === undefined || fn === undefined) this.#known.clear();
    else this.#known.delete(this.#layout.consumer(lane, fn));
  }

  /** The name of a consumer, which is there then. Its messages are counted by it, so it is made before the first. */
  async ensure(nats: Nats, lane: Lane, fn: string): Promise<string> {
    const name = this.#layout.consumer(lane, fn);
    let made = this.#known.get(name);
    if (!made) {
      made = this.#make(nats, name, `${lane}.${fn}.>`);
      this.#known.set(name, made);
      made.catch(() => this.#known.delete(name));
    }
    await made;
    return name;
  }

  /**
   * Begins consumers anew that know of less than is there, or of more: a server that is killed may come back with a
   * consumer that takes for done what it had only delivered. Whoever is delivered what somebody has, or what is not due, puts it back.
   */
  async mend(nats: Nats): Promise<void> {
    for await (const info of nats.jsm.consumers.list(this.#layout.stream("messages"))) {
      const work = this.#layout.consumerOf(info.name);
      if (work && (await this.#isWrong(nats, info, `${work.lane}.${work.fn}.>`)))
        await this.renew(nats, work.lane, work.fn);
    }
  }

  /** Has a consumer begin again with all that is there. */
  async renew(nats: Nats, lane: Lane, fn: string): Promise<void> {
    try {
      await nats.jsm.consumers.delete(this.#layout.stream("messages"), this.#layout.consumer(lane, fn));
    } catch (e) {
      if (!isServerError(e, notThere)) throw e; // another machine was as fast
    }
    this.forget(lane, fn);
    await this.ensure(nats, lane, fn);
  }

  async #isWrong(nats: Nats, info: ConsumerInfo, filter: string): Promise<boolean> {
    const { stream_name: stream, name, ack_floor } = info;
    const next_by_subj = this.#layout.subject("messages", filter);
    const first = await nats.jsm.direct.getMessage(stream, { seq: 1, next_by_subj });
    if (first && first.seq <= ack_floor.stream_seq) return true;
    const knows = ({ num_pending, num_ack_pending }: ConsumerInfo) => num_pending + num_ack_pending;
    if (!first && knows(info) === 0) return false;
    // what comes and goes between two looks is no reason
    let before = knows(info);
    for (let look = 0; look < looks; look++) {
      const there = await count(nats, this.#layout, "messages", filter);
      const after = knows(await nats.jsm.consumers.info(stream, name));
      if (there >= Math.min(before, after) && there <= Math.max(before, after)) return false;
      before = after;
    }
    return true;
  }

  async #make({ jsm }: Nats, name: string, filter: string): Promise<void> {
    const stream = this.#layout.stream("messages");
    const settings = { ack_wait: nanos(this.#ackWaitMs), max_ack_pending: -1 };
    try {
      await jsm.consumers.add(stream, {
        ...settings,
        durable_name: name,
        filter_subject: this.#layout.subject("messages", filter),
        ack_policy: AckPolicy.Explicit,
        deliver_policy: DeliverPolicy.All,
      });
    } catch (e) {
      if (!isServerError(e, existsOtherwise)) throw e;
      await jsm.consumers.update(stream, name, settings);
    }
  }
}
