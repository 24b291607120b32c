import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Lane, Message, Outcome, QueueStore } from "./store.ts";

export interface DispatcherOptions {
  readonly store: QueueStore;
  /** How many of a function run at a time in a lane. */
  readonly concurrency: (lane: Lane, fn: string) => number;
  /** Makes one attempt; aborted when the message is cancelled or napd stops. Must not fail. */
  readonly attempt: (message: Message, signal: AbortSignal) => Promise<Outcome>;
  /** Told of an outcome that does not count, because the message was cancelled or napd stops. */
  readonly discarded: (outcome: Outcome) => void;
  /** Told when a message is neither queued nor runs any more. */
  readonly left: (message: Message, outcome: Outcome) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The messages of one function in one lane, as far as they are known here. */
interface Work {
  readonly lane: Lane;
  readonly fn: string;
  running: number;
  isTaking: boolean;
  /** The store may have some that are due. */
  mayHaveMore: boolean;
  /** Waits for the next that is due, */
  timer: NodeJS.Timeout | null;
  /** ms since the epoch. */
  timerDue: number;
}

interface Running {
  readonly message: Message;
  readonly abort: AbortController;
}

/** Ms before the store is asked again that failed. */
const storeRetryMs = 1000;
const maxTimerMs = 2 ** 31 - 1;

/**
 * Takes messages from the store and has them attempted: per function and lane as many at a time as it may have, so that
 * a slow one holds up nobody else; the oldest first. Nothing is held here but what runs.
 */
export class Dispatcher {
  readonly #o: DispatcherOptions;
  readonly #work = new Map<string, Work>();
  readonly #running = new Map<number, Running>();
  #isStopped = false;
  #idle: (() => void) | null = null;

  constructor(options: DispatcherOptions) {
    this.#o = options;
  }

  /** There may be something to do for a function. */
  kick(lane: Lane, fn: string): void {
    const key = `${lane} ${fn}`;
    let work = this.#work.get(key);
    if (!work) {
      work = { lane, fn, running: 0, isTaking: false, mayHaveMore: true, timer: null, timerDue: 0 };
      this.#work.set(key, work);
    }
    work.mayHaveMore = true;
    void this.#pump(work);
  }

  /** Deliveries under way, by function. */
  inFlight(): { lane: Lane; fn: string; running: number }[] {
    return [...this.#work.values()];
  }

  /** Ends the attempts at these messages; what comes of them does not count. */
  abort(seqs: readonly number[]): void {
    for (const seq of seqs) this.#running.get(seq)?.abort.abort();
  }

  /** Takes no more, and resolves when nothing runs or `ms` are over; then ends what runs, which stays in the store. */
  async stop(ms: number): Promise<void> {
    this.#isStopped = true;
    for (const { timer } of this.#work.values()) if (timer) clearTimeout(timer);
    if (this.#isIdle) return;
    const done = new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
    const timer = setTimeout(() => this.abort([...this.#running.keys()]), ms);
    await done;
    clearTimeout(timer);
  }

  get #isIdle(): boolean {
    return this.#running.size === 0 && [...this.#work.values()].every(({ isTaking }) => !isTaking);
  }

  async #pump(work: Work): Promise<void> {
    if (this.#isStopped || work.isTaking || !work.mayHaveMore) return;
    const free = this.#o.concurrency(work.lane, work.fn) - work.running;
    if (free <= 0) return;
    work.isTaking = true;
    work.mayHaveMore = false;
    if (work.timer) clearTimeout(work.timer);
    work.timer = null;
    try {
      const { messages, nextDue } = await this.#o.store.take(work.lane, work.fn, free, this.#o.clock.now());
      // what is taken as napd stops is queued again when it starts
      if (!this.#isStopped) for (const message of messages) void this.#run(work, message);
      if (nextDue !== null) this.#wakeAt(work, nextDue);
    } catch (e) {
      this.#o.log.error({ fn: work.fn, err: messageOf(e) }, "the queue cannot be read");
      this.#wakeAt(work, this.#o.clock.now() + storeRetryMs);
    }
    work.isTaking = false;
    this.#settled(work);
  }

  #wakeAt(work: Work, due: number): void {
    const wait = due - this.#o.clock.now();
    if (wait <= 0) work.mayHaveMore = true;
    else if (!this.#isStopped && (work.timer === null || due < work.timerDue)) {
      if (work.timer) clearTimeout(work.timer);
      work.timerDue = due;
      work.timer = setTimeout(
        () => {
          work.timer = null;
          work.mayHaveMore = true;
          void this.#pump(work);
        },
        Math.min(wait, maxTimerMs),
      );
    }
  }

  async #run(work: Work, message: Message): Promise<void> {
    const abort = new AbortController();
    work.running++;
    this.#running.set(message.seq, { message, abort });
    const outcome = await this.#o.attempt(message, abort.signal);
    // one that napd's stop has ended stays as it is: it is queued again when napd starts
    if (abort.signal.aborted || !(await this.#settle(work, message, outcome))) this.#o.discarded(outcome);
    work.running--;
    this.#running.delete(message.seq);
    this.#settled(work);
  }

  /** False when the outcome does not count. */
  async #settle(work: Work, message: Message, outcome: Outcome): Promise<boolean> {
    for (;;) {
      try {
        const isThere = await this.#o.store.settle(message.seq, outcome);
        if (!isThere) return false;
        if (outcome.to === "queued") this.#wakeAt(work, outcome.due);
        else this.#o.left(message, outcome);
        if (outcome.next) this.kick(outcome.next.lane, outcome.next.fn);
        return true;
      } catch (e) {
        this.#o.log.error({ callId: message.callId, err: messageOf(e) }, "the queue cannot be written");
        if (this.#isStopped) return false;
        await this.#o.clock.sleep(storeRetryMs);
      }
    }
  }

  #settled(work: Work): void {
    if (this.#isStopped) {
      if (this.#isIdle) this.#idle?.();
      return;
    }
    void this.#pump(work);
    if (!work.isTaking && work.running === 0 && work.timer === null && !work.mayHaveMore)
      this.#work.delete(`${work.lane} ${work.fn}`);
  }
}
