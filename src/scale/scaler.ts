import { backoffMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { FunctionId } from "../base/names.ts";
import { Pending } from "../base/pending.ts";
import type { Backend } from "../functions/backend.ts";
import type { Managed } from "../functions/managed.ts";
import type { Replica } from "../functions/replica.ts";
import { decideSleep, Highest, Rate, replicasFor } from "./decide.ts";

export interface ScalerOptions {
  /** Every function there is. */
  functions: () => Iterable<Managed>;
  backend: Pick<Backend, "can" | "freeze" | "thaw">;
  /** Stops all replicas of a function that nobody calls, until somebody does. Synchronous. */
  stop: (fn: Managed) => void;
  /** Asks for so many replicas; stored, so it survives. */
  scale: (fn: FunctionId, replicas: number) => Promise<void>;
  /** What all replicas of a function use together, in thousandths of a core. */
  milliCpu: (fn: FunctionId) => number;
  clock: Clock;
  log: Logger;
}

/** Time between two ticks, ms: a quarter of the shortest idle time, within these bounds. */
const longestTickMs = 1000;
const shortestTickMs = 5;
/** When there is more to do than one tick may, the next one comes so soon, ms. */
const busyTickMs = 20;
/** At once: a thaw shares the few threads of file access with freezes, and a call waits for it. */
const freezesAtOnce = 16;
/** In one tick: each is a durable write. */
const stopsPerTick = 8;
/** Waiting times before a replica whose freeze failed is tried again. */
const retryMinMs = 1000;
const retryMaxMs = 300_000;
/** Over which calls a second are counted. */
const rateWindowMs = 10_000;

/** What is remembered of a function between two ticks. */
class Watched {
  started: number;
  readySince: number;
  activeAt: number;
  asleepAt: number | null = null;
  failures = 0;
  retryAt = 0;
  readonly rate = new Rate(rateWindowMs);
  readonly advice = new Highest();
  /** The count that the last advice was about. */
  replicas: number | null = null;
  isScaling = false;

  constructor(now: number, started: number, readySince: number) {
    this.activeAt = now;
    this.started = started;
    this.readySince = readySince;
  }
}

/**
 * Puts functions to sleep and follows their load: one tick looks at all of them, and nothing happens per call or per
 * function in between. A call is seen by the counter that it moved, so the data path keeps no time for this.
 *
 * Its clock only counts time in which napd ran: after a stop (SIGSTOP, a laptop's lid) calls may wait in the sockets
 * that nobody has read yet, and a function must not seem idle because of them.
 */
export class Scaler implements AsyncDisposable {
  readonly #o: ScalerOptions;
  readonly #watched = new WeakMap<Managed, Watched>();
  /** Freezes and scalings under way, so that closing can wait for them. */
  readonly #work: Pending;
  #freezing = 0;
  #now = 0;
  #lastTick: number | null = null;
  #tickMs = longestTickMs;
  #timer: NodeJS.Timeout | null = null;
  #closing = false;

  constructor(options: ScalerOptions) {
    this.#o = options;
    this.#work = new Pending((e) => options.log.error({ err: messageOf(e) }, "unexpected failure in the scaler"));
  }

  start(): void {
    this.#timer = setTimeout(() => {
      this.tick();
      if (!this.#closing) this.start();
    }, this.#tickMs).unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    if (this.#timer) clearTimeout(this.#timer);
    await this.#work.settled();
  }

  /** Looks at every function and launches what is to be done. Never waits. */
  tick(): void {
    const clock = this.#o.clock.monotonic();
    this.#now += Math.min(clock - (this.#lastTick ?? clock), 2 * this.#tickMs);
    this.#lastTick = clock;
    let shortestIdle = 4 * longestTickMs;
    let stops = stopsPerTick;
    let isBusy = false;
    for (const fn of this.#o.functions()) {
      const policy = fn.entry.policy.scale;
      if (policy.sleeps) shortestIdle = Math.min(shortestIdle, policy.idleMs);
      const watched = this.#watch(fn);
      const decision = this.#decideSleep(fn, watched);
      if (decision === "freeze" && this.#now >= watched.retryAt) {
        for (const replica of fn.replicas.values()) {
          if (replica.state !== "ready") continue;
          if (this.#freezing < freezesAtOnce) this.#freeze(fn, watched, replica);
          else isBusy = true;
        }
      }
      if (decision === "stop") {
        if (stops-- > 0) this.#o.stop(fn);
        else isBusy = true;
      }
      if (policy.follows) this.#follow(fn, watched);
    }
    this.#tickMs = isBusy ? busyTickMs : Math.max(shortestTickMs, shortestIdle / 4);
  }

  /** Brings what is remembered up to date. */
  #watch(fn: Managed): Watched {
    const { started, inFlight } = fn.entry.calls;
    let readySince = 0;
    for (const replica of fn.replicas.values()) readySince = Math.max(readySince, replica.readySince ?? 0);
    const watched = this.#watched.get(fn) ?? new Watched(this.#now, started, readySince);
    this.#watched.set(fn, watched);
    if (inFlight > 0 || started !== watched.started || readySince !== watched.readySince) {
      watched.activeAt = this.#now;
      watched.started = started;
      watched.readySince = readySince;
    }
    return watched;
  }

  #decideSleep(fn: Managed, watched: Watched): "leave" | "freeze" | "stop" {
    let awake = 0;
    let frozen = 0;
    let inFlight = fn.entry.calls.inFlight;
    let isChanging = fn.row.previous !== null;
    for (const replica of fn.replicas.values()) {
      inFlight += replica.inFlight;
      if (replica.isDoubted) isChanging = true; // it is being looked at
      if (replica.state === "ready") awake++;
      else if (replica.isAsleep) frozen++;
      else isChanging = true;
    }
    if (awake > 0 || frozen === 0) watched.asleepAt = null;
    else watched.asleepAt ??= this.#now;
    const { now, canFreeze } = { now: this.#now, canFreeze: this.#o.backend.can.freeze };
    const { activeAt, asleepAt } = watched;
    const policy = fn.entry.policy.scale;
    const wanted = fn.row.replicas;
    return decideSleep({ now, activeAt, asleepAt, inFlight, awake, frozen, isChanging, wanted, canFreeze, policy });
  }

  #freeze(fn: Managed, watched: Watched, replica: Replica): void {
    const { backend, log } = this.#o;
    this.#freezing++;
    const run = async () => {
      try {
        if (!(await replica.fallAsleep(backend))) return;
        if (watched.failures > 0) log.info({ fn: fn.key, replica: replica.id }, "replica could be frozen again");
        watched.failures = 0;
      } catch (e) {
        if (replica.state !== "ready" && replica.state !== "frozen") return; // it ended meanwhile
        if (watched.failures === 0)
          log.warn(
            { fn: fn.key, replica: replica.id, err: messageOf(e) },
            "replica could not be frozen; it stays awake",
          );
        watched.retryAt = this.#now + backoffMs(watched.failures++, retryMinMs, retryMaxMs);
      } finally {
        this.#freezing--;
      }
    };
    this.#work.add(run());
  }

  /** Replicas by load: up at once, down when the load has been lower for the whole window. */
  #follow(fn: Managed, watched: Watched): void {
    const { entry, row } = fn;
    const { minReplicas, maxReplicas, scale: policy } = entry.policy;
    const rate = watched.rate.add(this.#now, entry.calls.started);
    // who sleeps is woken by a call, not by us; and a version that is not proven is not multiplied
    if (row.replicas === 0 || row.stopped || row.previous !== null) return;
    const load = { rps: rate, capacity: entry.calls.inFlight, cpu: this.#o.milliCpu(entry.id) }[policy.measure];
    if (row.replicas !== watched.replicas) watched.advice.add(this.#now, row.replicas); // whoever changed it gets the window
    watched.replicas = row.replicas;
    watched.advice.add(this.#now, replicasFor(load, policy.target * policy.proportion, minReplicas, maxReplicas));
    const wanted = watched.advice.within(policy.downWindowMs, this.#now)!;
    if (wanted === row.replicas || watched.isScaling) return;
    watched.isScaling = true;
    const run = async () => {
      try {
        await this.#o.scale(entry.id, wanted);
        watched.replicas = wanted;
        this.#o.log.info({ fn: fn.key, from: row.replicas, to: wanted, load: +load.toFixed(1) }, "scaled by load");
      } catch (e) {
        this.#o.log.warn({ fn: fn.key, err: messageOf(e) }, "scaling by load failed");
      } finally {
        watched.isScaling = false;
      }
    };
    this.#work.add(run());
  }
}
