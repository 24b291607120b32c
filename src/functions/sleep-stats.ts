import type { Backend } from "./backend.ts";
import { DurationCounts } from "./call-stats.ts";

/** Upper bounds of how long calls wait for a function to wake up, in seconds: a thaw takes 1 ms, a start 0.1 s. */
export const waitBounds: readonly number[] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

type Freezer = Pick<Backend, "can" | "freeze" | "thaw">;

/** How functions of this daemon fell asleep and woke up, over the life of this process. */
export class SleepStats {
  freezes = 0;
  freezeFailures = 0;
  thaws = 0;
  /** Of calls that found nobody awake: by what had to be waited for. */
  readonly waits = { frozen: new DurationCounts(waitBounds), stopped: new DurationCounts(waitBounds) };

  /** The same backend, counted. */
  watching(backend: Freezer): Freezer {
    return {
      can: backend.can,
      freeze: async (replica) => {
        try {
          await backend.freeze(replica);
          this.freezes++;
        } catch (e) {
          this.freezeFailures++;
          throw e;
        }
      },
      thaw: async (replica) => {
        await backend.thaw(replica);
        this.thaws++;
      },
    };
  }
}
