import { isAppError, messageOf } from "../../base/errors.ts";
import { Disk, type Need } from "./disk.ts";
import type { Tools } from "./tools.ts";
import { type Content, chooseUnused, groupImages, type ImageGroup, isUsed, type UsedImage } from "./unused.ts";

export interface KeeperOptions {
  readonly disk: Disk;
  /** Percent in use above which unused images are removed, and down to which. */
  readonly gcHigh: number;
  readonly gcLow: number;
  /** Images used within so many ms are not removed by themselves. */
  readonly gcMinAgeMs: number;
  readonly namespaces: () => readonly string[];
  /** Of all functions, with the versions they may go back to, and of deploys under way. */
  readonly used: () => readonly UsedImage[];
}

/** Between two looks at the disk that nobody asked for. */
const lookMs = 60_000;
/** Between two looks while something is written. */
const watchMs = 500;

/**
 * Decides which images stay: keeps those that are being fetched or used, removes others when the disk fills up, and
 * refuses what would not fit. An image is removed and taken hold of one after the other, never at once, so what a
 * deploy found here is still here when it has its pin.
 */
export class Keeper {
  readonly #tools: Tools;
  readonly #o: KeeperOptions;
  /** Names that work under way needs. */
  readonly #held = new Set<{ namespace: string; name: string }>();
  #removing: Promise<void> | null = null;
  #collecting: Promise<void> | null = null;

  constructor(tools: Tools, options: KeeperOptions) {
    this.#tools = tools;
    this.#o = options;
  }

  /** Keeps the image of that name from removal until it is disposed of. */
  async hold(namespace: string, name: string): Promise<Disposable> {
    while (this.#removing) await this.#removing;
    const held = { namespace, name };
    this.#held.add(held);
    return { [Symbol.dispose]: () => void this.#held.delete(held) };
  }

  /** Looks at the disk, now and then again until disposed; collects when it is fuller than the high mark. */
  start(): AsyncDisposable {
    const stop = new AbortController();
    const run = async () => {
      while (!stop.signal.aborted) {
        await this.#collectAboveMark().catch((e) => this.#warn(e));
        await this.#tools.clock.sleep(lookMs, stop.signal).catch(() => {});
      }
    };
    const running = run();
    return {
      [Symbol.asyncDispose]: async () => {
        stop.abort();
        await running;
        await this.#collecting;
      },
    };
  }

  async #collectAboveMark(): Promise<void> {
    if (((await this.#o.disk.used()) ?? 0) <= this.#o.gcHigh) return;
    await this.#collect(async () => ((await this.#o.disk.used()) ?? 0) <= this.#o.gcLow);
  }

  /** Removes unused images until so much can be written. Throws DISK_LOW when it cannot; `what` is its subject. */
  async makeRoom(what: string, need: Need): Promise<void> {
    if (!(await this.#o.disk.lacks(what, need))) return;
    await this.#collect(async () => !(await this.#o.disk.lacks(what, need)));
    const lack = await this.#o.disk.lacks(what, need);
    if (lack) throw lack;
  }

  /**
   * The signal to write under: aborts with DISK_LOW when the disk gets too full meanwhile, and nothing can be removed.
   * How large a layer is unpacked, nobody says beforehand.
   */
  watch(what: string, signal: AbortSignal): { signal: AbortSignal } & Disposable {
    const full = new AbortController();
    let looking = false;
    const look = async () => {
      if (looking) return;
      looking = true;
      await this.makeRoom(what, {}).catch((e) => (isAppError(e, "DISK_LOW") ? full.abort(e) : this.#warn(e)));
      looking = false;
    };
    const timer = setInterval(look, watchMs);
    return { signal: AbortSignal.any([signal, full.signal]), [Symbol.dispose]: () => clearInterval(timer) };
  }

  /** Removes unused images until `enough`; one at a time, because each frees what nobody can know beforehand. */
  async #collect(enough: () => Promise<boolean>): Promise<void> {
    while (this.#collecting) await this.#collecting;
    const run = async () => {
      const before = this.#tools.clock.now() - this.#o.gcMinAgeMs;
      for (const group of await this.#unused(this.#o.namespaces(), before)) {
        if (await enough()) return;
        await this.remove(group);
      }
    };
    const collecting = run().finally(() => {
      this.#collecting = null;
    });
    this.#collecting = collecting.catch(() => {}); // who waits for its end does not care how it ended
    await collecting;
  }

  /** Removes every unused image of these namespaces, however new; answers with what went. */
  async prune(namespaces: readonly string[]): Promise<ImageGroup[]> {
    const removed: ImageGroup[] = [];
    for (const group of await this.#unused(namespaces, Number.POSITIVE_INFINITY))
      if (await this.remove(group)) removed.push(group);
    return removed;
  }

  async #unused(namespaces: readonly string[], before: number): Promise<ImageGroup[]> {
    const { images } = this.#tools.containerd;
    const lists = await Promise.all(
      namespaces.map(async (ns) => groupImages(ns, await images.list({ namespace: ns }))),
    );
    const used = this.#o.used();
    return chooseUnused(lists.flat(), { before, isNeeded: (group) => this.#isNeeded(group, used) });
  }

  #isNeeded(content: Content, used = this.#o.used()): boolean {
    return isUsed(content, used) || this.isHeld(content);
  }

  /** Whether work under way needs one of these names. */
  isHeld({ namespace, names }: Content): boolean {
    return [...this.#held].some((held) => held.namespace === namespace && names.includes(held.name));
  }

  /** What functions and deploys need right now. */
  used(): readonly UsedImage[] {
    return this.#o.used();
  }

  /**
   * Removes these names of an image and waits until the space is free. False when `isNeeded` says at the last moment
   * that they must stay. @default a function or work under way needs it
   */
  async remove(content: Content, isNeeded = () => this.#isNeeded(content)): Promise<boolean> {
    while (this.#removing) await this.#removing;
    if (isNeeded()) return false;
    const { containerd, log } = this.#tools;
    const { namespace, names, digest } = content;
    const run = async () => {
      for (const [i, name] of names.entries()) {
        const record = await containerd.images.get(name, { namespace });
        if (record && record.target.digest !== digest) continue; // the name has moved on since
        await containerd.images.delete(name, { namespace, sync: i === names.length - 1 });
      }
      log.info({ namespace, image: names[0], names: names.length, digest }, "image removed");
    };
    const removing = run().finally(() => {
      this.#removing = null;
    });
    this.#removing = removing.catch(() => {}); // as above
    await removing;
    return true;
  }

  #warn(e: unknown): void {
    this.#tools.log.warn({ err: messageOf(e) }, "unused images could not be removed");
  }
}

/** For a process that only brings images in: it knows of no use, so it removes nothing and refuses nothing. */
export function openKeeper(tools: Tools, options: KeeperOptions | undefined): Keeper {
  const disk = new Disk({ imageDirs: [], dataDir: "/nonexistent", reserve: 0 });
  return new Keeper(
    tools,
    options ?? { disk, gcHigh: 100, gcLow: 100, gcMinAgeMs: 0, namespaces: () => [], used: () => [] },
  );
}
