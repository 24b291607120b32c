import type { Lane } from "../store.ts";

/** How often those are asked for again that should have been delivered again by now, and for how long, ms. */
export const overdueEveryMs = 100;
const overdueForMs = 2000;

/** When what waits for its next attempt is due, as far as this machine put it off. Instants in ms since the epoch. */
export class PutOff {
  readonly #dues = new Map<string, Map<number, number>>();

  add(lane: Lane, fn: string, seq: number, due: number): void {
    const key = `${lane} ${fn}`;
    const dues = this.#dues.get(key) ?? new Map<number, number>();
    this.#dues.set(key, dues.set(seq, due));
  }

  remove(seq: number): void {
    for (const dues of this.#dues.values()) dues.delete(seq);
  }

  /** When to ask for messages again; null when none was put off. */
  nextDue(lane: Lane, fn: string, now: number): number | null {
    const key = `${lane} ${fn}`;
    const dues = this.#dues.get(key);
    if (!dues) return null;
    let next = Number.POSITIVE_INFINITY;
    for (const [seq, due] of dues) {
      // another machine has it by now
      if (due + overdueForMs < now) dues.delete(seq);
      else next = Math.min(next, due <= now ? now + overdueEveryMs : due);
    }
    if (dues.size === 0) this.#dues.delete(key);
    return Number.isFinite(next) ? next : null;
  }
}
