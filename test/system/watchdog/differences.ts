import type { CaseEvent, Expectation } from "./case.ts";

/** What one case sees instead of what was recorded. */
interface Override {
  expect: Expectation;
  /** Instead of the recorded events; absent: those. */
  timeline?: CaseEvent[];
}

/** One deliberate difference from the OpenFaaS watchdogs, with the recorded cases in which it shows. */
export interface Difference {
  /** What the reference does. */
  theirs: string;
  /** What we do. */
  ours: string;
  why: string;
  cases: Record<string, Override>;
}

export const differences: readonly Difference[] = [];
