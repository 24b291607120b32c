/** Work that nobody awaits where it is begun: kept, so that whoever closes can wait for it, and so that no failure is lost. */
export class Pending {
  readonly #work = new Set<Promise<void>>();
  readonly #failed: (error: unknown) => void;

  /** `failed` is told of every rejection. */
  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  add(work: Promise<void>): void {
    const kept = work.catch(this.#failed).finally(() => this.#work.delete(kept));
    this.#work.add(kept);
  }

  /** Resolves when nothing is under way any more, including what was begun meanwhile. */
  async settled(): Promise<void> {
    while (this.#work.size > 0) await Promise.all(this.#work);
  }
}
