import type { Clock } from "../base/clock.ts";
import { AppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Deliver } from "../invoke/internal.ts";
import type { Invoke } from "../invoke/invoke.ts";
import { openAccept } from "./accept.ts";
import type { MessageBodies } from "./bodies.ts";
import { openDelivery } from "./delivery.ts";
import { Dispatcher } from "./dispatcher.ts";
import type { Guard } from "./guard.ts";
import { Places } from "./places.ts";
import type { KeptResult, Results } from "./results.ts";
import type { RetryPolicy } from "./retry.ts";
import type { Depth, Lane, MessageFilter, MessageInfo, NewMessage, QueueStore } from "./store.ts";

/** What the queue goes by for one function. */
export interface FunctionLimits extends RetryPolicy {
  readonly concurrency: number;
  /** Messages that are queued or run. */
  readonly maxPending: number;
  /** How long results are kept, ms; 0: not at all. */
  readonly keepResultsMs: number;
  /** 0: no limit of its own. */
  readonly maxBodyBytes: number;
}

export interface QueueOptions {
  readonly store: QueueStore;
  readonly bodies: MessageBodies;
  readonly results: Results;
  readonly guard: Guard;
  readonly deliver: Deliver;
  readonly defaultNamespace: string;
  /** Undefined when there is no such function. */
  readonly limits: (fn: string) => FunctionLimits | undefined;
  /** Of functions that are gone while their calls are not. */
  readonly defaults: FunctionLimits;
  readonly maxBodyBytes: number;
  readonly maxResultBytes: number;
  /** Messages of all functions that are queued or run; as many that were given up are kept. */
  readonly maxPending: number;
  /** Ms. */
  readonly keepDeadMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Of one function since napd runs. */
export interface QueueCounts {
  submitted: number;
  /** Calls that are done or were given up. */
  processed: number;
  retries: number;
  givenUp: number;
}

/** Callbacks of one function's calls under way at a time. */
const callbackConcurrency = 10;
const buryEveryMs = 10 * 60_000;
/** How often a shared store is asked what others have put and taken. */
const recountEveryMs = 5000;

/** Asynchronous calls: kept, made, told of. Disposing it ends what runs, which begins anew at the next start. */
export class Queue {
  /** Takes a request of `/async-function/…`. */
  readonly accept: Invoke;
  readonly #o: QueueOptions;
  readonly #dispatcher: Dispatcher;
  readonly #counts = new Map<string, QueueCounts>();
  readonly #burying: NodeJS.Timeout;
  readonly #recounting: NodeJS.Timeout | null;
  readonly #places: Places;
  #depths: Promise<readonly Depth[]> | null = null;

  private constructor(options: QueueOptions, depths: readonly Depth[]) {
    this.#o = options;
    const { store, defaults, clock, log } = options;
    const limits = (fn: string) => options.limits(fn) ?? defaults;
    this.#places = new Places(options.maxPending, depths);
    const attempt = openDelivery({ ...options, policy: limits });
    this.#dispatcher = new Dispatcher({
      ...{ store, clock, log },
      attempt: async (message, signal) => {
        const outcome = await attempt(message, signal);
        if (message.lane === "call" && outcome.to === "queued") this.#count(message.fn).retries++;
        return outcome;
      },
      concurrency: (lane, fn) => {
        if (lane === "callback") return callbackConcurrency;
        return store.isShared && !options.limits(fn) ? 0 : limits(fn).concurrency;
      },
      discarded: ({ next }) => void (next && options.bodies.drop(next.body).catch(() => {})), // the sweep finds it
      left: ({ lane, fn }, { to, next }) => {
        this.#places.free(fn);
        if (next) this.#places.add(next.fn);
        if (lane === "callback") return;
        const counts = this.#count(fn);
        counts.processed++;
        if (to === "dead") counts.givenUp++;
      },
    });
    this.accept = openAccept({
      ...options,
      functionBodyLimit: (fn) => options.limits(fn)?.maxBodyBytes,
      reserve: (fn) => this.#places.reserve(fn, limits(fn).maxPending),
      release: (fn) => this.#places.free(fn),
      put: (message) => this.#put(message),
      cancel: async (callId) => (await this.#remove(callId)) > 0,
    });
    store.watch({
      available: (lane, fn) => this.#kick(lane, fn),
      removed: (seqs) => this.#dispatcher.abort(seqs),
    });
    for (const { lane, fn, queued } of depths) if (queued > 0) this.#kick(lane, fn);
    this.#recounting = store.isShared ? setInterval(() => void this.#recount(), recountEveryMs) : null;
    this.#burying = setInterval(() => void this.#bury(), buryEveryMs);
    if (!store.isShared) void this.#bury(); // a server is not there yet
  }

  /** Begins with what an earlier napd has left. */
  static async open(options: QueueOptions): Promise<Queue> {
    const { store } = options;
    return new Queue(options, store.isShared ? [] : await store.depths());
  }

  list(filter: Omit<MessageFilter, "callId">): Promise<readonly MessageInfo[]> {
    return this.#o.store.list(filter);
  }

  /** What is there of a call: itself, and its callback. Fails with QUEUE_CALL_NOT_FOUND. */
  async get(callId: string): Promise<readonly MessageInfo[]> {
    const found = await this.#o.store.list({ callId, limit: 100 });
    if (found.length === 0) throw new AppError("QUEUE_CALL_NOT_FOUND", [callId]);
    return found;
  }

  /**
   * What came of a call or, while it is queued or runs, what `get` says. Fails with RESULT_NOT_FOUND, or with
   * RESULT_NOT_KEPT when it was not kept whole.
   */
  async result(callId: string): Promise<KeptResult | readonly MessageInfo[]> {
    const known = await this.#o.store.list({ callId, limit: 100 });
    if (known.some(({ lane, state }) => lane === "call" && state !== "dead")) return known;
    const result = await this.#o.results.get(callId);
    if (!result) throw new AppError("RESULT_NOT_FOUND", [callId]);
    if (result.isWhole) return result;
    result.body.destroy();
    throw new AppError("RESULT_NOT_KEPT", [callId, this.#o.maxResultBytes]);
  }

  /** Ends a call wherever it is. Fails with QUEUE_CALL_NOT_FOUND. */
  async cancel(callId: string): Promise<void> {
    if ((await this.#remove(callId)) === 0) throw new AppError("QUEUE_CALL_NOT_FOUND", [callId]);
  }

  /** Queues a call again that was given up. Fails with QUEUE_CALL_NOT_FOUND or QUEUE_CALL_NOT_DEAD. */
  async retry(callId: string): Promise<void> {
    const revived = await this.#o.store.revive(callId, this.#o.clock.now());
    if (revived.length === 0) {
      await this.get(callId);
      throw new AppError("QUEUE_CALL_NOT_DEAD", [callId]);
    }
    for (const { lane, fn } of revived) {
      this.#places.add(fn);
      this.#kick(lane, fn);
    }
  }

  /** Who asks while somebody else does gets the same: a scrape asks for each of its metrics. */
  depths(): Promise<readonly Depth[]> {
    this.#depths ??= this.#o.store.depths().finally(() => {
      this.#depths = null;
    });
    return this.#depths;
  }

  counts(): ReadonlyMap<string, QueueCounts> {
    return this.#counts;
  }

  inFlight(): readonly { lane: Lane; fn: string; running: number }[] {
    return this.#dispatcher.inFlight();
  }

  /** Begins nothing any more; what runs has `ms` to end, and begins anew at the next start if it does not. */
  async stop(ms: number): Promise<void> {
    clearInterval(this.#burying);
    if (this.#recounting) clearInterval(this.#recounting);
    await this.#dispatcher.stop(ms);
  }

  /** For one that has its place already. */
  async #put(message: NewMessage): Promise<void> {
    await this.#o.store.put(message);
    this.#count(message.fn).submitted++;
    this.#dispatcher.kick(message.lane, message.fn);
  }

  async #remove(callId: string): Promise<number> {
    const removed = await this.#o.store.remove(callId);
    this.#dispatcher.abort(removed.map(({ seq }) => seq));
    for (const { fn, state } of removed) if (state !== "dead") this.#places.free(fn);
    return removed.length;
  }

  #count(fn: string): QueueCounts {
    let counts = this.#counts.get(fn);
    if (!counts) {
      counts = { submitted: 0, processed: 0, retries: 0, givenUp: 0 };
      this.#counts.set(fn, counts);
    }
    return counts;
  }

  /** Of a store that is shared, this machine takes what it has the function for, and callbacks. */
  #kick(lane: Lane, fn: string): void {
    if (lane === "callback" || !this.#o.store.isShared || this.#o.limits(fn)) this.#dispatcher.kick(lane, fn);
  }

  /** What another machine did that is dead by now, or could not tell, is found here. */
  async #recount(): Promise<void> {
    try {
      const depths = await this.depths();
      this.#places.recount(depths);
      for (const { lane, fn, queued, running } of depths) if (queued + running > 0) this.#kick(lane, fn);
    } catch (e) {
      this.#o.log.debug({ err: messageOf(e) }, "the queue cannot be counted");
    }
  }

  async #bury(): Promise<void> {
    const { store, keepDeadMs, maxPending, clock, log } = this.#o;
    try {
      const buried = await store.bury(clock.now() - keepDeadMs, maxPending);
      if (buried > 0) log.info({ buried }, "calls that were given up long ago are gone");
    } catch (e) {
      log.error({ err: messageOf(e) }, "the queue cannot be swept");
    }
  }
}
