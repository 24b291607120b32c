import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../base/clock.ts";
import { AppError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type FunctionId, keyOf } from "../base/names.ts";
import { Pending } from "../base/pending.ts";
import { CronJob, type CronRun, type CronState, cutOff } from "./cron-job.ts";
import { cronPlanOf, cronTopic, hasCronTopic } from "./cron-plan.ts";

/** One call to be made: POST, no body, these headers. */
export interface CronCall {
  readonly id: FunctionId;
  readonly headers: Readonly<Record<string, string>>;
  /** To be put into the queue, not to be waited for. */
  readonly isAsync: boolean;
}

/** What came of a call. */
export interface CronOutcome {
  readonly status: number;
}

/** A function as cron looks at it. */
export interface CronFunction {
  readonly id: FunctionId;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Where what must survive a restart is kept. */
export interface CronRecords {
  load(): (FunctionId & { readonly state: CronState })[];
  /** All of it or nothing. */
  save(changed: readonly (FunctionId & { readonly state: CronState })[], gone: readonly FunctionId[]): void;
}

export interface CronOptions {
  /** Of schedules that name none. */
  timeZone: string;
  /** Every function there is, those that nobody calls too. */
  functions: () => Iterable<CronFunction>;
  /** Makes a call; rejects when there is no answer, or the signal aborts. */
  deliver: (call: CronCall, signal: AbortSignal) => Promise<CronOutcome>;
  records: CronRecords;
  clock: Clock;
  log: Logger;
}

/** What is shown of a function. */
export interface CronStatus extends FunctionId {
  readonly schedules: readonly { expression: string; timeZone: string | null; next: number | null }[];
  readonly overlap: "allow" | "skip";
  readonly missed: "skip" | "once";
  readonly isAsync: boolean;
  readonly problems: readonly string[];
  /** Oldest first. */
  readonly runs: readonly Readonly<CronRun>[];
}

const none: readonly string[] = [];

/** Between two looks at the clock, ms: it may be set, and functions change. */
const longestWaitMs = 1000;

/**
 * Calls functions at the times that their annotations ask for: contracts/api.md §3.6. One tick looks at all of them,
 * at the next instant that is due and once a second at the latest; so a clock that jumps, a machine that slept and a
 * function that changed need no news. No instant is dealt with twice, and none of many that came at once but the last.
 */
export class Cron implements AsyncDisposable {
  readonly #o: CronOptions;
  readonly #jobs = new Map<string, CronJob>();
  /** Stored, and not seen yet since napd started. */
  readonly #stored: Map<string, FunctionId & { readonly state: CronState }>;
  /** To be taken out of the store. */
  #gone: FunctionId[] = [];
  readonly #work: Pending;
  readonly #ending = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;
  #savesFail = false;

  constructor(options: CronOptions) {
    this.#o = options;
    this.#work = new Pending((e) => options.log.error({ err: messageOf(e) }, "unexpected failure in cron"));
    this.#stored = new Map(options.records.load().map((record) => [keyOf(record), record]));
  }

  start(): void {
    if (this.#stopped) return;
    let waitMs = longestWaitMs;
    try {
      waitMs = Math.min(longestWaitMs, Math.max(1, this.tick() - this.#o.clock.now()));
    } catch (e) {
      // a schedule must not end napd
      this.#o.log.error({ err: messageOf(e) }, "unexpected failure in cron");
    }
    this.#timer = setTimeout(() => this.start(), waitMs).unref();
  }

  /** Begins no further runs. */
  stop(): void {
    this.#stopped = true;
    if (this.#timer) clearTimeout(this.#timer);
  }

  /** The same, and those under way have `ms` to end; what does not is cut off. */
  async end(ms: number): Promise<void> {
    this.stop();
    const timer = setTimeout(() => this.#ending.abort(), ms);
    await this.#work.settled();
    clearTimeout(timer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end(0);
    this.#save();
  }

  /** Begins the runs that are due; returns the next instant. Never waits. */
  tick(): number {
    this.#look();
    const now = this.#o.clock.now();
    const begin: [CronJob, CronRun][] = [];
    let next = Number.POSITIVE_INFINITY;
    for (const job of this.#jobs.values()) {
      for (const { at, missed } of job.due(now)) {
        const run = newRun(missed ? "missed" : "schedule", at, now);
        if (missed && job.plan.missed === "skip") run.result = "missed";
        else if (job.plan.overlap === "skip" && job.isRunning) run.result = "skipped";
        else begin.push([job, run]);
        job.add(run);
      }
      for (const time of job.times) next = Math.min(next, time.next ?? next);
    }
    // before the calls: an instant that was dealt with is not dealt with again, whatever happens now
    this.#save();
    for (const [job, run] of begin) this.#work.add(this.#run(job, run));
    return next;
  }

  /** Sorted by name. */
  list(namespace: string): CronStatus[] {
    this.#look();
    return [...this.#jobs.values()]
      .filter((job) => job.id.namespace === namespace)
      .sort((a, b) => (a.id.name < b.id.name ? -1 : 1))
      .map(statusOf);
  }

  /** What of a function's annotations cannot be followed, one sentence each; as of the last tick. */
  problems(id: FunctionId): readonly string[] {
    return this.#jobs.get(keyOf(id))?.plan.problems ?? none;
  }

  /** Begins a run now, whatever the schedules say. Fails with CRON_UNKNOWN, CRON_RUNNING or SHUTTING_DOWN. */
  run(id: FunctionId): Readonly<CronRun> {
    this.#look();
    const job = this.#jobs.get(keyOf(id));
    if (this.#stopped) throw new AppError("SHUTTING_DOWN", []);
    if (!job) throw new AppError("CRON_UNKNOWN", [keyOf(id)]);
    if (job.plan.overlap === "skip" && job.isRunning) throw new AppError("CRON_RUNNING", [keyOf(id)]);
    const run = newRun("manual", null, this.#o.clock.now());
    job.add(run);
    this.#work.add(this.#run(job, run));
    return { ...run };
  }

  /** Compares what there is with what is known. */
  #look(): void {
    const now = this.#o.clock.now();
    const seen = new Set<string>();
    for (const { id, annotations } of this.#o.functions()) {
      const key = keyOf(id);
      const job = this.#jobs.get(key);
      if (job?.annotations !== annotations && !hasCronTopic(annotations)) continue;
      seen.add(key);
      // another object when the function was stored again, whatever for
      if (job && isDeepStrictEqual(job.annotations, annotations)) {
        job.annotations = annotations;
        continue;
      }
      const plan = cronPlanOf(annotations, this.#o.timeZone);
      if (job) job.follow(annotations, plan, now);
      else this.#jobs.set(key, new CronJob(id, annotations, plan, this.#stored.get(key)?.state, now));
      this.#stored.delete(key);
      for (const problem of plan.problems) this.#o.log.warn({ fn: key, problem }, "cron cannot follow an annotation");
    }
    for (const [key, job] of this.#jobs) {
      if (seen.has(key)) continue;
      this.#jobs.delete(key);
      this.#gone.push(job.id);
    }
    this.#gone.push(...this.#stored.values());
    this.#stored.clear();
  }

  async #run(job: CronJob, run: CronRun): Promise<void> {
    const { clock, deliver } = this.#o;
    const { signal } = this.#ending;
    const begin = clock.monotonic();
    const headers = {
      "X-Topic": cronTopic,
      "X-Connector": "cron-connector",
      "User-Agent": "napd-cron",
      "X-Call-Id": run.callId,
    };
    try {
      run.status = (await deliver({ id: job.id, headers, isAsync: job.plan.isAsync }, signal)).status;
      run.result = run.status < 400 ? "ok" : "failed";
      if (run.result === "failed") run.error = `it answered ${run.status}`;
    } catch (e) {
      run.result = "failed";
      run.error = signal.aborted ? cutOff : messageOf(e);
    }
    run.durationMs = clock.monotonic() - begin;
    job.isDirty = true;
    if (run.error) this.#o.log.warn({ fn: keyOf(job.id), callId: run.callId, err: run.error }, "a cron run failed");
  }

  #save(): void {
    const dirty = [...this.#jobs.values()].filter((job) => job.isDirty);
    if (dirty.length === 0 && this.#gone.length === 0) return;
    try {
      this.#o.records.save(
        dirty.map((job) => ({ ...job.id, state: job.state })),
        this.#gone,
      );
      for (const job of dirty) job.isDirty = false;
      this.#gone = [];
      this.#savesFail = false;
    } catch (e) {
      // runs go on; they are stored when it works again
      if (!this.#savesFail) this.#o.log.error({ err: messageOf(e) }, "runs of cron could not be stored");
      this.#savesFail = true;
    }
  }
}

function newRun(trigger: CronRun["trigger"], scheduledAt: number | null, now: number): CronRun {
  const nothing = { durationMs: null, status: null, error: null };
  return { callId: randomUUID(), trigger, scheduledAt, startedAt: now, result: "running", ...nothing };
}

function statusOf({ id, plan, times, runs }: CronJob): CronStatus {
  const { overlap, missed, isAsync, problems } = plan;
  const schedules = times.map(({ schedule: { expression, timeZone }, next }) => ({ expression, timeZone, next }));
  return { ...id, schedules, overlap, missed, isAsync, problems, runs };
}
