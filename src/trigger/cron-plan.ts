import { messageOf } from "../base/errors.ts";
import { parseSchedule, type Schedule } from "./schedule.ts";

/** The topic that makes a function one of cron. */
export const cronTopic = "cron-function";

type Annotations = Readonly<Record<string, string>>;

/** What a function's annotations ask of cron. */
export interface CronPlan {
  readonly schedules: readonly Schedule[];
  /** What could not be followed, one sentence each; the rest is. */
  readonly problems: readonly string[];
  /** Whether a run may begin while another one goes on. */
  readonly overlap: "allow" | "skip";
  /** What becomes of instants over which napd, or the machine, was not there: nothing, or one run for all of them. */
  readonly missed: "skip" | "once";
  /** Through the queue, not as a call that is waited for. */
  readonly isAsync: boolean;
}

/** Whether `topic`, a list with commas, names cron: contracts/api.md §3.6. */
export function hasCronTopic(annotations: Annotations): boolean {
  return (annotations.topic ?? "").split(",").some((topic) => topic.trim() === cronTopic);
}

/** `timeZone`: of schedules that name none. Never fails: what cannot be followed is in `problems`. */
export function cronPlanOf(annotations: Annotations, timeZone: string): CronPlan {
  const problems: string[] = [];
  const choose = <T extends string>(name: string, values: readonly [T, T]): T => {
    const given = annotations[name];
    const chosen = given === undefined ? values[0] : values.find((v) => v === given);
    if (chosen === undefined) problems.push(`${name}: "${given}" is none of ${values.join(", ")}; ${values[0]} it is`);
    return chosen ?? values[0];
  };
  const overlap = choose("napd.cron.overlap", ["allow", "skip"]);
  const missed = choose("napd.cron.missed", ["skip", "once"]);
  const isAsync = choose("napd.cron.async", ["false", "true"]) === "true";
  const schedules = new Map<string, Schedule>();
  const expressions = (annotations.schedule ?? "").split(";").filter((text) => text.trim() !== "");
  if (expressions.length === 0) problems.push("schedule: the annotation is missing or empty");
  for (const text of expressions) {
    try {
      const schedule = parseSchedule(text, annotations["napd.cron.timezone"] ?? timeZone);
      schedules.set(scheduleKey(schedule), schedule);
    } catch (e) {
      problems.push(`schedule: ${messageOf(e)}`);
    }
  }
  return { schedules: [...schedules.values()], problems, overlap, missed, isAsync };
}

/** What makes two schedules the same one. */
export function scheduleKey({ expression, timeZone }: Schedule): string {
  return timeZone === null ? expression : `CRON_TZ=${timeZone} ${expression}`;
}
