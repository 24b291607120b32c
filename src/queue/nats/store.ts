import type { Msg } from "@nats-io/transport-node";
import type { Clock } from "../../base/clock.ts";
import { isAppError, messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { Pending } from "../../base/pending.ts";
import type {
  Depth,
  Lane,
  Message,
  MessageFilter,
  MessageInfo,
  MessageState,
  NewMessage,
  Outcome,
  QueueStore,
  StoreEvents,
  Taken,
} from "../store.ts";
import type { NatsBodies } from "./bodies.ts";
import type { Link, Nats } from "./connection.ts";
import { Consumers } from "./consumers.ts";
import { deliveryOf, type Info, type Key, type Layout, newId, newKey, partsOf } from "./layout.ts";
import { type Packed, pack, publish, unpack } from "./messages.ts";
import { pull } from "./pull.ts";
import { overdueEveryMs, PutOff } from "./put-off.ts";
import { deleteMessage, purgeKey, type Run, readRun, writeRun } from "./runs.ts";
import { bury, sweep } from "./sweep.ts";
import { depths, find, findRuns, list } from "./views.ts";
import { Withdrawals } from "./withdrawals.ts";

export interface NatsStoreOptions {
  readonly link: Link;
  readonly layout: Layout;
  readonly bodies: NatsBodies;
  /** How long this machine may be silent before others take over what it has taken, ms; the same on all machines. */
  readonly ackWaitMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** A message that this machine has taken. */
interface Held {
  readonly key: Key;
  readonly info: Info;
  readonly payload: Uint8Array;
  readonly run: Run;
  /** Of the run, in its stream. */
  record: number;
  /** Where it is said what becomes of it. */
  reply: string;
  /** The message that follows, ready to be published. */
  next?: Packed;
  /** Its removal was asked for, and the answer did not come. */
  isLeaving: boolean;
}

/** How often, at most, consumers are looked at, ms. */
const minMendMs = 5000;

/**
 * The queue on a NATS server with JetStream, which several machines may share. What one has taken it keeps by signs of
 * life; when those end, the server delivers it to another. Of all that changes a message, one step decides: its removal
 * from its stream when it is done or given up, a new record of its attempts when it is to be tried again. Who comes too
 * late with that finds out, and its outcome does not count.
 */
export class NatsStore implements QueueStore {
  readonly isShared = true;
  readonly #o: NatsStoreOptions;
  readonly #consumers: Consumers;
  /** In records: which napd it is. */
  readonly #id = newId();
  readonly #held = new Map<number, Held>();
  /** On their way to be held. */
  readonly #beginning = new Set<number>();
  readonly #putOff = new PutOff();
  readonly #withdrawals: Withdrawals;
  readonly #behind: Pending;
  readonly #renewing: NodeJS.Timeout;
  readonly #mending: NodeJS.Timeout;
  #events: StoreEvents | null = null;

  constructor(options: NatsStoreOptions) {
    this.#o = options;
    this.#consumers = new Consumers(options.layout, options.ackWaitMs);
    this.#behind = new Pending((e) =>
      options.log.debug({ err: messageOf(e) }, "something was not removed from the queue's server; it is swept later"),
    );
    this.#withdrawals = new Withdrawals({ ...options, behind: this.#behind });
    this.#renewing = setInterval(() => this.#renew(), options.ackWaitMs / 3).unref();
    const mend = () => options.link.ask((nats) => this.#consumers.mend(nats));
    this.#mending = setInterval(
      () => void (options.link.current && this.#behind.add(mend())),
      Math.max(options.ackWaitMs, minMendMs),
    ).unref();
    options.link.onUp((nats) => this.#up(nats));
  }

  watch(events: StoreEvents): void {
    this.#events = events;
    if (this.#o.link.current) this.#behind.add(this.#announceAll()); // it came before anybody listened
  }

  async put(message: NewMessage): Promise<void> {
    const { link, layout, bodies } = this.#o;
    await link.ask((nats) => this.#consumers.ensure(nats, message.lane, message.fn));
    const packed = await pack(link, bodies, newKey(message), message);
    try {
      await publish(link, layout, "messages", packed, { expect: { lastSubjectSequence: 0 } });
    } catch (e) {
      this.#withdrawals.add(packed);
      throw e;
    }
    await bodies.drop(message.body);
    this.#wakeOthers(message.lane, message.fn);
  }

  /** None while the server is away: `watch` tells when there are some again. */
  async take(lane: Lane, fn: string, limit: number, now: number): Promise<Taken> {
    const { link, log } = this.#o;
    const messages: Message[] = [];
    let isMore = false;
    try {
      const delivered = await link.ask((nats) => this.#pull(nats, lane, fn, limit));
      isMore = delivered.length >= limit;
      const begun = await Promise.allSettled(delivered.map((msg) => link.ask((nats) => this.#begin(nats, msg, now))));
      // what could not be begun is delivered again
      for (const one of begun) {
        if (one.status === "rejected") log.warn({ fn, err: messageOf(one.reason) }, "a message could not be taken");
        else if (one.value) messages.push(one.value);
      }
    } catch (e) {
      if (!isAppError(e, "QUEUE_SERVER")) throw e;
    }
    messages.sort((a, b) => a.seq - b.seq);
    return { messages, nextDue: isMore ? now : this.#putOff.nextDue(lane, fn, now) };
  }

  async settle(seq: number, outcome: Outcome): Promise<boolean> {
    const held = this.#held.get(seq);
    if (!held) return false;
    const counts =
      outcome.to === "queued" ? await this.#putBack(seq, held, outcome) : await this.#finish(seq, held, outcome);
    this.#held.delete(seq);
    return counts;
  }

  depths(): Promise<readonly Depth[]> {
    return this.#o.link.ask((nats) => depths(nats, this.#o.layout));
  }

  list(filter: MessageFilter): Promise<readonly MessageInfo[]> {
    return this.#o.link.ask((nats) => list(nats, this.#o.layout, filter));
  }

  async remove(callId: string): Promise<readonly { seq: number; lane: Lane; fn: string; state: MessageState }[]> {
    const { link, layout } = this.#o;
    const removed = await link.ask(async (nats) => {
      const runs = await findRuns(nats, layout, { callId });
      const gone: { seq: number; lane: Lane; fn: string; state: MessageState }[] = [];
      for (const name of ["messages", "dead"] as const) {
        for (const { key, seq, info } of await find(nats, layout, name, { callId })) {
          if (!(await deleteMessage(nats.jsm, layout.stream(name), seq, true))) continue;
          await purgeKey(nats.jsm, layout, "runs", key);
          this.#removeBody(info);
          // numbers of the two streams meet, and nothing that is dead has an attempt to end
          const state = name === "dead" ? "dead" : (runs.get(key)?.state ?? "queued");
          gone.push({ seq: name === "dead" ? -seq : seq, ...partsOf(key), state });
        }
      }
      return gone;
    });
    const seqs = removed.map(({ seq }) => seq).filter((seq) => seq > 0);
    for (const seq of seqs) this.#forget(seq);
    if (seqs.length > 0) this.#tell("gone", { seqs });
    return removed.map(({ seq, lane, fn, state }) => ({ seq, lane, fn, state }));
  }

  async revive(callId: string): Promise<readonly { lane: Lane; fn: string }[]> {
    const { link, layout } = this.#o;
    const revived = await link.ask(async (nats) => {
      const found = [];
      for (const { key, seq, info } of await find(nats, layout, "dead", { callId })) {
        const { lane, fn, id } = partsOf(key);
        const dead = await nats.jsm.streams.getMessage(layout.stream("dead"), { seq });
        if (!dead) continue;
        await this.#consumers.ensure(nats, lane, fn);
        const { attempts, status, error, ...fresh } = info;
        // an id of its own: what follows from its next attempts is not what followed from the last ones
        const again = newKey({ lane, fn, callId }, `${id}-${seq}`);
        await publish(link, layout, "messages", { key: again, info: fresh, payload: dead.data });
        if (await deleteMessage(nats.jsm, layout.stream("dead"), seq, true)) found.push({ lane, fn });
      }
      return found;
    });
    for (const { lane, fn } of revived) this.#wakeOthers(lane, fn);
    return revived;
  }

  async bury(before: number, keep: number): Promise<number> {
    const { link, layout, clock } = this.#o;
    return link.ask(async (nats) => {
      const buried = await bury(nats, layout, before, keep);
      await sweep(nats, layout, clock.now());
      return buried;
    });
  }

  /** What it has taken is there for others at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { link, layout, clock } = this.#o;
    clearInterval(this.#renewing);
    clearInterval(this.#mending);
    const nats = link.current;
    if (nats) {
      const release = async ({ key, run, record, reply }: Held) => {
        await writeRun(nats, layout, key, { ...run, state: "queued", due: clock.now() }, record);
        link.say(reply, "-NAK");
      };
      await Promise.allSettled([...this.#held.values()].map((held) => link.ask(() => release(held))));
      await this.#behind.settled();
      await link.ask(({ nc }) => nc.flush()).catch(() => {});
    }
    this.#held.clear();
    await link[Symbol.asyncDispose]();
  }

  #up({ nc }: Nats): void {
    const { layout, link, clock } = this.#o;
    this.#consumers.forget();
    const listen = <T>(what: "wake" | "gone", heard: (content: T) => void) =>
      nc.subscribe(layout.notice(what), { callback: (error, msg) => void (error || heard(msg.json<T>())) });
    listen<{ by: string; lane: Lane; fn: string }>("wake", ({ by, lane, fn }) => {
      if (by !== this.#id) this.#events?.available(lane, fn);
    });
    listen<{ seqs: number[] }>("gone", ({ seqs }) => {
      for (const seq of seqs) this.#forget(seq);
      this.#events?.removed(seqs);
    });
    // asked by others before they take over what this one has
    nc.subscribe(this.#aliveSubject(this.#id), {
      callback: (error, msg) => {
        const seq = Number(msg.string());
        if (!error) link.say(msg.reply!, this.#held.has(seq) || this.#beginning.has(seq) ? "yes" : "no");
      },
    });
    this.#renew();
    this.#withdrawals.retry();
    const begin = async (nats: Nats) => {
      await this.#consumers.mend(nats);
      await this.#announceAll();
      await sweep(nats, layout, clock.now());
    };
    this.#behind.add(link.ask(begin));
  }

  async #announceAll(): Promise<void> {
    for (const { lane, fn, queued } of await this.depths()) if (queued > 0) this.#events?.available(lane, fn);
  }

  async #pull(nats: Nats, lane: Lane, fn: string, limit: number): Promise<Msg[]> {
    const stream = this.#o.layout.stream("messages");
    const consumer = await this.#consumers.ensure(nats, lane, fn);
    const { found, end } = await pull(nats.nc, stream, consumer, limit);
    if (end === "all") return found;
    // it is not there, or it waits for messages that are gone and so may have forgotten others
    if (end === "nobody") this.#consumers.forget(lane, fn);
    else await this.#consumers.renew(nats, lane, fn);
    const again = await this.#consumers.ensure(nats, lane, fn);
    return [...found, ...(await pull(nats.nc, stream, again, limit - found.length)).found];
  }

  /** Makes a delivered message ours; null when it is not for now, or not for us. */
  async #begin(nats: Nats, delivery: Msg, now: number): Promise<Message | null> {
    const { seq } = deliveryOf(delivery);
    const held = this.#held.get(seq);
    if (held) {
      // the server took us for dead; the attempt goes on
      held.reply = delivery.reply!;
      this.#o.link.say(held.reply, "+WPI");
      return null;
    }
    if (this.#beginning.has(seq)) return null;
    this.#beginning.add(seq);
    try {
      return await this.#claim(nats, delivery, now);
    } finally {
      this.#beginning.delete(seq);
    }
  }

  async #claim(nats: Nats, delivery: Msg, now: number): Promise<Message | null> {
    const { layout } = this.#o;
    const { seq, deliveries } = deliveryOf(delivery);
    const reply = delivery.reply!;
    const key = layout.keyOf(delivery.subject);
    const { lane, fn } = partsOf(key);
    const unread: Run = { seq, attempts: 1, state: "running", due: now, status: null, error: null, by: this.#id };
    let run = unread;
    let record = deliveries === 1 ? await writeRun(nats, layout, key, run, 0) : null;
    if (record === null) {
      const before = await readRun(nats, layout, key);
      if (before?.state === "queued" && before.due > now) {
        this.#putOffUntil(reply, seq, lane, fn, before.due, now);
        return null;
      }
      if (before?.state === "running" && before.by !== this.#id && (await this.#isAlive(nats, before.by, seq))) {
        this.#nak(reply, this.#o.ackWaitMs);
        return null;
      }
      const { status = null, error = null, attempts = 0 } = before ?? {};
      run = { ...unread, attempts: attempts + 1, status, error };
      record = await writeRun(nats, layout, key, run, before?.record ?? 0);
      if (record === null) {
        this.#nak(reply, overdueEveryMs);
        return null;
      }
    }
    this.#putOff.remove(seq);
    const { info, message } = unpack(key, seq, run.attempts, delivery);
    this.#held.set(seq, { key, info, payload: delivery.data, run, record, reply, isLeaving: false });
    return message;
  }

  async #isAlive({ nc }: Nats, by: string, seq: number): Promise<boolean> {
    try {
      return (await nc.request(this.#aliveSubject(by), String(seq), { timeout: 1000 })).string() === "yes";
    } catch {
      return false; // nobody of that name
    }
  }

  #aliveSubject(id: string): string {
    return this.#o.layout.notice(`alive.${id}`);
  }

  async #putBack(seq: number, held: Held, { due, status, error }: Outcome & { to: "queued" }): Promise<boolean> {
    const { link, layout, clock } = this.#o;
    const run: Run = { ...held.run, state: "queued", due, status: status ?? null, error: error ?? null };
    const record = await link.ask((nats) => writeRun(nats, layout, held.key, run, held.record));
    if (record === null) return false;
    const { lane, fn } = partsOf(held.key);
    this.#putOffUntil(held.reply, seq, lane, fn, due, clock.now());
    return true;
  }

  async #finish(seq: number, held: Held, outcome: Outcome & { to: "done" | "dead" }): Promise<boolean> {
    const { link, layout, bodies } = this.#o;
    const { key, info, payload, run } = held;
    // first what follows, then the removal: a death in between brings an attempt twice, and loses nothing
    if (outcome.next) await this.#putNext(held, outcome.next);
    if (outcome.to === "dead") {
      const { status = null, error = null } = outcome;
      await publish(link, layout, "dead", { key, payload, info: { ...info, attempts: run.attempts, status, error } });
    }
    const wasLeaving = held.isLeaving;
    held.isLeaving = true;
    const isOurs = await link.ask(({ jsm }) => deleteMessage(jsm, layout.stream("messages"), seq, true));
    if (!isOurs && !wasLeaving) {
      // it was cancelled meanwhile, or somebody else was faster
      if (held.next) this.#withdrawals.add(held.next);
      if (outcome.to === "dead") this.#behind.add(link.ask(({ jsm }) => purgeKey(jsm, layout, "dead", key)));
      return false;
    }
    this.#behind.add(link.ask((nats) => purgeKey(nats.jsm, layout, "runs", key)));
    if (outcome.to === "done") this.#removeBody(info);
    if (outcome.next) {
      await bodies.drop(outcome.next.body);
      this.#wakeOthers(outcome.next.lane, outcome.next.fn);
    }
    return true;
  }

  async #putNext(held: Held, next: NewMessage): Promise<void> {
    const { link, layout, bodies } = this.#o;
    const id = `${partsOf(held.key).id}n`;
    if (!held.next) {
      await link.ask((nats) => this.#consumers.ensure(nats, next.lane, next.fn));
      held.next = await pack(link, bodies, newKey(next, id), next);
    }
    const isNew = await publish(link, layout, "messages", held.next, { msgID: id });
    const body = held.next.info.body;
    if (isNew || !body) return;
    // the server has it already: from here with its answer lost, or from whoever had the message before
    const there = await link.ask(({ jsm }) =>
      jsm.streams.getMessage(layout.stream("messages"), { last_by_subj: layout.subject("messages", held.next!.key) }),
    );
    if (!there?.header.toString().includes(body.id)) this.#removeBody(held.next.info);
  }

  #putOffUntil(reply: string, seq: number, lane: Lane, fn: string, due: number, now: number): void {
    this.#nak(reply, Math.max(1, due - now));
    this.#putOff.add(lane, fn, seq, due);
  }

  /** Signs of life for all that runs here. */
  #renew(): void {
    for (const { reply } of this.#held.values()) this.#o.link.say(reply, "+WPI");
  }

  /** Has the server deliver a message again after `ms`, to anybody. */
  #nak(reply: string, ms: number): void {
    this.#o.link.say(reply, `-NAK ${JSON.stringify({ delay: Math.round(ms) * 1_000_000 })}`);
  }

  #forget(seq: number): void {
    this.#held.delete(seq);
    this.#putOff.remove(seq);
  }

  #wakeOthers(lane: Lane, fn: string): void {
    this.#tell("wake", { by: this.#id, lane, fn });
  }

  #tell(what: "wake" | "gone", content: object): void {
    this.#o.link.say(this.#o.layout.notice(what), JSON.stringify(content));
  }

  #removeBody({ body }: Info): void {
    if (body) this.#behind.add(this.#o.bodies.remove(body.id));
  }
}
