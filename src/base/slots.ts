interface Waiter {
  readonly owner: object;
  urgent: boolean;
  readonly enter: () => void;
}

/**
 * Lets so many in at once; the others wait. Those in a hurry and those who are not take turns as long as there are
 * both, so neither waits for the end of the other's queue. Within each, who came first goes first.
 */
export class Slots {
  #free: number;
  #waiting: Waiter[] = [];
  #lastWasUrgent = false;

  constructor(count: number) {
    this.#free = count;
  }

  /** Resolves with the place, to be disposed of once. Rejects with the signal's reason when it aborts first. */
  async enter(owner: object, urgent: boolean, signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const abort = () => {
        this.#waiting = this.#waiting.filter((w) => w !== waiter);
        reject(signal.reason);
      };
      const enter = () => {
        signal.removeEventListener("abort", abort);
        resolve();
      };
      const waiter = { owner, urgent, enter };
      this.#waiting.push(waiter);
      signal.addEventListener("abort", abort, { once: true });
      this.#admit();
    });
    let left = false;
    return {
      [Symbol.dispose]: () => {
        if (left) return;
        left = true;
        this.#free++;
        this.#admit();
      },
    };
  }

  /** What waits for `owner` is in a hurry from now on. */
  hurry(owner: object): void {
    for (const waiter of this.#waiting) if (waiter.owner === owner) waiter.urgent = true;
  }

  #admit(): void {
    while (this.#free > 0 && this.#waiting.length > 0) {
      const wanted = this.#waiting.findIndex((w) => w.urgent !== this.#lastWasUrgent);
      const [next] = this.#waiting.splice(Math.max(0, wanted), 1);
      this.#lastWasUrgent = next!.urgent;
      this.#free--;
      next!.enter();
    }
  }
}
