import type { PullProgress } from "./pull.ts";

interface Pull {
  readonly namespace: string;
  readonly name: string;
  progress: PullProgress;
}

/** The pulls that go on at this moment, for whoever wants to see how far they are. */
export class PullsUnderWay {
  readonly #all = new Set<Pull>();

  /** Is one of them until it is disposed. */
  begin(namespace: string, name: string): Disposable & { report(progress: PullProgress): void } {
    const pull: Pull = { namespace, name, progress: { phase: "resolve", doneBytes: 0, totalBytes: 0 } };
    this.#all.add(pull);
    return {
      report: (progress) => {
        pull.progress = progress;
      },
      [Symbol.dispose]: () => void this.#all.delete(pull),
    };
  }

  list(namespace: string): Readonly<Pull>[] {
    return [...this.#all].filter((pull) => pull.namespace === namespace);
  }
}
