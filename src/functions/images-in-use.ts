import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Backend } from "./backend.ts";
import type { Row } from "./managed.ts";

/** A prepared image, and whose it is. */
export interface ImageUse {
  readonly namespace: string;
  readonly image: string;
}

/** The images that a function needs: of its version, and of the one to go back to. */
export function imagesOf({ namespace, version, previous }: Row): ImageUse[] {
  return [version, ...(previous ? [previous.version] : [])].map(({ image }) => ({ namespace, image }));
}

/** An image in use as a backend is told of it. */
export interface UsedImage extends ImageUse {
  /** Name of the function; null for a deploy that is under way. */
  readonly by: string | null;
}

/** Which images are needed: by functions, by the versions that they may go back to, by deploys that are under way. */
export class ImagesInUse {
  readonly #rows: () => readonly Row[];
  readonly #held = new Set<UsedImage>();

  constructor(rows: () => readonly Row[]) {
    this.#rows = rows;
  }

  /** Keeps a prepared image until it is in the store, or given up. */
  hold(namespace: string, image: string): Disposable {
    const held = { namespace, image, by: null };
    this.#held.add(held);
    return { [Symbol.dispose]: () => void this.#held.delete(held) };
  }

  isHeld(use: ImageUse): boolean {
    return [...this.#held].some((held) => held.namespace === use.namespace && held.image === use.image);
  }

  list(): UsedImage[] {
    return [...this.#rows().flatMap((row) => imagesOf(row).map((use) => ({ ...use, by: row.name }))), ...this.#held];
  }
}

/** Lets go of a prepared image unless one of `rows` needs it. Never fails: what stays is released by the next sweep. */
export async function releaseImage(backend: Backend, use: ImageUse, rows: Iterable<Row>, log: Logger): Promise<void> {
  for (const row of rows) if (imagesOf(row).some((i) => i.namespace === use.namespace && i.image === use.image)) return;
  await backend
    .release(use.namespace, use.image)
    .catch((e) => log.warn({ image: use.image, err: messageOf(e) }, "image could not be released"));
}
