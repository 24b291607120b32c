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

interface Release {
  /** Counts up with every release. */
  readonly number: number;
  readonly done: Promise<void>;
  isDone: boolean;
}

/**
 * Which images are needed: by functions, by the versions that they may go back to, by deploys that are under way. An
 * image is let go of only when nobody needs it, also when a deploy prepares the same one at that very moment.
 */
export class ImagesInUse {
  readonly #rows: () => readonly Row[];
  readonly #held = new Set<UsedImage>();
  /** The last release of each image: those under way, and those that a preparation under way may have met. */
  readonly #releases = new Map<string, Release>();
  #released = 0;
  #preparing = 0;

  constructor(rows: () => readonly Row[]) {
    this.#rows = rows;
  }

  /** Prepares an image and keeps it until disposed of: then it is in the store, or given up. */
  async prepare(namespace: string, prepare: () => Promise<string>): Promise<{ image: string } & Disposable> {
    this.#preparing++;
    try {
      for (;;) {
        const before = this.#released;
        const image = await prepare();
        const held = { namespace, image, by: null };
        this.#held.add(held); // from here on nobody begins to let go of it
        const release = this.#releases.get(keyOf(held));
        if (!release || (release.isDone && release.number <= before))
          return { image, [Symbol.dispose]: () => void this.#held.delete(held) };
        await release.done.catch(() => {}); // whatever came of it, the next preparation knows
        this.#held.delete(held);
      }
    } finally {
      if (--this.#preparing === 0)
        for (const [key, { isDone }] of this.#releases) if (isDone) this.#releases.delete(key);
    }
  }

  /** Lets go of a prepared image, unless one of `rows` or a deploy needs it. */
  async release(use: ImageUse, rows: Iterable<Row>, release: () => Promise<void>): Promise<void> {
    if (this.#isHeld(use)) return;
    for (const row of rows) if (imagesOf(row).some((i) => isSame(i, use))) return;
    const entry = { number: ++this.#released, done: release(), isDone: false };
    this.#releases.set(keyOf(use), entry);
    await entry.done.finally(() => {
      entry.isDone = true;
      if (this.#preparing === 0 && this.#releases.get(keyOf(use)) === entry) this.#releases.delete(keyOf(use));
    });
  }

  list(): UsedImage[] {
    return [...this.#rows().flatMap((row) => imagesOf(row).map((use) => ({ ...use, by: row.name }))), ...this.#held];
  }

  #isHeld(use: ImageUse): boolean {
    return [...this.#held].some((held) => isSame(held, use));
  }
}

function isSame(a: ImageUse, b: ImageUse): boolean {
  return a.namespace === b.namespace && a.image === b.image;
}

function keyOf({ namespace, image }: ImageUse): string {
  return `${namespace}/${image}`;
}
