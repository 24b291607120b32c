import type { FunctionId } from "../base/names.ts";
import { type CronPlan, scheduleKey } from "./cron-plan.ts";
import type { Schedule } from "./schedule.ts";

/** One run of a function, or one that should have been. Instants are ms since the epoch. */
export interface CronRun {
  /** X-Call-Id of its call. */
  readonly callId: string;
  /** Why it is: its time had come, its time had come while nobody was there, somebody asked for it. */
  readonly trigger: "schedule" | "missed" | "manual";
  /** When it was due; null for manual ones. */
  readonly scheduledAt: number | null;
  readonly startedAt: number;
  /** `skipped`: another run went on; `missed`: nobody was there. Neither was sent. */
  result: "running" | "ok" | "failed" | "skipped" | "missed";
  durationMs: number | null;
  /** Status of the answer; null when there was none. */
  status: number | null;
  error: string | null;
}

/** What must survive a restart. */
export interface CronState {
  /** By schedule: up to when its instants have been dealt with. */
  readonly done: Readonly<Record<string, number>>;
  /** The latest ones, oldest first. */
  readonly runs: readonly CronRun[];
}

/** Why a run has failed that napd did not wait for. */
export const cutOff = "napd ended while it ran";

/** Runs that are remembered of a function. */
const maxRuns = 20;
/** An instant noticed within this is on time: pauses of the process, its own restart. Ms. */
export const graceMs = 10_000;
/**
 * A clock set back by less is waited for, so that no instant comes twice; set back by more it had been wrong, and what
 * was dealt with then is forgotten. As Vixie's cron has it. Ms.
 */
const maxRewindMs = 3 * 3_600_000;

/** An instant of a schedule that has come: `missed` when it had come much earlier, and nobody was there. */
export interface Due {
  readonly at: number;
  readonly missed: boolean;
}

/** One schedule of a function, and how far it has been dealt with. */
class Timetable {
  readonly schedule: Schedule;
  done: number;
  next: number | null;

  constructor(schedule: Schedule, done: number) {
    this.schedule = schedule;
    this.done = done;
    this.next = schedule.next(done);
  }

  /** The instant that has come by now, the latest one if there are several; dealt with from here on. */
  take(now: number): Due | null {
    const { intervalMs } = this.schedule;
    // an interval has no instants of its own on the clock: it is counted again from where the clock is now
    if (this.done > now + (intervalMs === null ? maxRewindMs : 0)) this.#deal(now);
    if (this.next === null || this.next > now) return null;
    const late = now - this.next;
    const latest =
      intervalMs === null
        ? this.schedule.next(now - graceMs - 1)
        : this.next + Math.floor(late / intervalMs) * intervalMs;
    const at = latest === null || latest > now ? this.next : Math.max(this.next, latest);
    const due = { at, missed: now - at > graceMs };
    // an interval keeps its step, though it is noticed late
    this.#deal(intervalMs === null ? now : at);
    return due;
  }

  #deal(done: number): void {
    this.done = done;
    this.next = this.schedule.next(done);
  }
}

/** What cron knows of one function. */
export class CronJob {
  readonly id: FunctionId;
  annotations: Readonly<Record<string, string>>;
  plan: CronPlan;
  /** Differs from what is stored. */
  isDirty = true;
  runs: CronRun[];
  #timetables: Timetable[];

  constructor(
    id: FunctionId,
    annotations: Readonly<Record<string, string>>,
    plan: CronPlan,
    state: CronState | undefined,
    now: number,
  ) {
    this.id = id;
    this.annotations = annotations;
    this.plan = plan;
    this.#timetables = timetables(plan, state?.done ?? {}, now);
    this.runs = (state?.runs ?? []).map((run) =>
      run.result === "running" ? { ...run, result: "failed", error: cutOff } : run,
    );
  }

  /** Follows changed annotations; schedules that stay go on as they were. */
  follow(annotations: Readonly<Record<string, string>>, plan: CronPlan, now: number): void {
    this.#timetables = timetables(plan, this.state.done, now);
    this.annotations = annotations;
    this.plan = plan;
    this.isDirty = true;
  }

  /** Schedules with the next instant of each. */
  get times(): readonly { readonly schedule: Schedule; readonly next: number | null }[] {
    return this.#timetables;
  }

  get isRunning(): boolean {
    return this.runs.some((run) => run.result === "running");
  }

  /** Instants that have come; one that several schedules share comes once, and of missed ones only the latest. */
  due(now: number): Due[] {
    const instants = new Map<number, Due>();
    let missed: Due | null = null;
    for (const timetable of this.#timetables) {
      const due = timetable.take(now);
      if (!due) continue;
      this.isDirty = true;
      if (!due.missed) instants.set(due.at, due);
      else if (!missed || due.at > missed.at) missed = due;
    }
    return instants.size === 0 && missed ? [missed] : [...instants.values()];
  }

  add(run: CronRun): void {
    this.runs.push(run);
    // a run that goes on is not forgotten: it says that one does
    const oldest = this.runs.findIndex(({ result }) => result !== "running");
    if (this.runs.length > maxRuns && oldest >= 0) this.runs.splice(oldest, 1);
    this.isDirty = true;
  }

  get state(): CronState {
    const done = Object.fromEntries(this.#timetables.map((t) => [scheduleKey(t.schedule), t.done]));
    return { done, runs: this.runs.slice(-maxRuns) };
  }
}

function timetables({ schedules }: CronPlan, done: CronState["done"], now: number): Timetable[] {
  return schedules.map((schedule) => new Timetable(schedule, done[scheduleKey(schedule)] ?? now));
}
