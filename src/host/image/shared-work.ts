interface Running<V> {
  readonly promise: Promise<V>;
  readonly ending: AbortController;
  waiting: number;
}

/** Single flight whose work is told to end when the last of those who wait for it has left. */
export class SharedWork<K, V> {
  readonly #running = new Map<K, Running<V>>();

  /** Waits for the work of `key`, begun now unless it is under way. Rejects with the signal's reason. */
  async join(key: K, work: (ending: AbortSignal) => Promise<V>, signal?: AbortSignal): Promise<V> {
    signal?.throwIfAborted();
    const running = this.#running.get(key) ?? this.#start(key, work);
    running.waiting++;
    const left = Promise.withResolvers<never>();
    const leave = () => left.reject(signal!.reason);
    signal?.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([running.promise, left.promise]);
    } finally {
      signal?.removeEventListener("abort", leave);
      if (--running.waiting === 0) this.#forget(key, running);
    }
  }

  /** Resolves when nothing runs, however it ended. */
  async idle(): Promise<void> {
    while (this.#running.size > 0 || this.#leaving.size > 0)
      await Promise.allSettled([...[...this.#running.values()].map((r) => r.promise), ...this.#leaving]);
  }

  /** Work that nobody waits for any more, cleaning up. */
  readonly #leaving = new Set<Promise<V>>();

  #start(key: K, work: (ending: AbortSignal) => Promise<V>): Running<V> {
    const ending = new AbortController();
    const running: Running<V> = { promise: work(ending.signal), ending, waiting: 0 };
    this.#running.set(key, running);
    const over = () => {
      this.#leaving.delete(running.promise);
      if (this.#running.get(key) === running) this.#running.delete(key);
    };
    running.promise.then(over, over);
    return running;
  }

  /** Who comes from now on begins anew, as this one is ending. */
  #forget(key: K, running: Running<V>): void {
    if (this.#running.get(key) !== running) return;
    this.#running.delete(key);
    this.#leaving.add(running.promise);
    running.promise.then(
      () => this.#leaving.delete(running.promise),
      () => this.#leaving.delete(running.promise),
    );
    running.ending.abort(new Error("nobody waits for this any more"));
  }
}
