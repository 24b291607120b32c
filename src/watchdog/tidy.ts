import { Deadline } from "./http1/deadline.ts";
import { bun } from "./runtime.ts";

/** Milliseconds without a call after which it is cleaned up. */
const QUIET_MS = 1000;
/** Calls that leave enough behind to be worth it: a collection takes some milliseconds of CPU. */
const WORTH_IT = 1000;

/**
 * Gives memory back when nobody is served: what starting left behind (half a megabyte), and after a burst what it
 * left (several). The runtime would get to the latter sometime, but a frozen function has no time of its own.
 */
export class Tidier {
  readonly #quiet = new Deadline(() => this.#tidy());
  #calls = WORTH_IT;

  constructor() {
    if (bun) this.#quiet.set(QUIET_MS);
  }

  /** A call is over. `idle`: no other one is under way. */
  over(idle: boolean): void {
    this.#calls++;
    if (idle && this.#calls >= WORTH_IT && bun) this.#quiet.set(QUIET_MS);
    else this.#quiet.clear();
  }

  #tidy(): void {
    this.#calls = 0;
    bun?.gc(true);
  }
}
