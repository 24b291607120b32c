import type { FunctionStore } from "../store/functions.ts";
import type { Version } from "./managed.ts";

/** An image that something needs, by the name that Backend.prepare gave it. */
export interface UsedImage {
  readonly namespace: string;
  readonly image: string;
  /** Name of the function; null for a deploy that is under way. */
  readonly by: string | null;
}

/** Which images are needed: by functions, by the versions that they may go back to, by deploys that are under way. */
export class ImageUse {
  readonly #store: Pick<FunctionStore<Version>, "list">;
  readonly #held = new Set<UsedImage>();

  constructor(store: Pick<FunctionStore<Version>, "list">) {
    this.#store = store;
  }

  /** Keeps a prepared image until it is in the store, or given up. */
  hold(namespace: string, image: string): Disposable {
    const held = { namespace, image, by: null };
    this.#held.add(held);
    return { [Symbol.dispose]: () => void this.#held.delete(held) };
  }

  list(): UsedImage[] {
    const stored = this.#store
      .list()
      .flatMap(({ namespace, name, version, previous }) =>
        [version, ...(previous ? [previous.version] : [])].map(({ image }) => ({ namespace, image, by: name })),
      );
    return [...stored, ...this.#held];
  }
}
