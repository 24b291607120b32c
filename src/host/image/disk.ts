import { stat, statfs } from "node:fs/promises";
import { AppError, systemCode } from "../../base/errors.ts";
import { formatBytes } from "../../base/quantities.ts";

/** A file system, in bytes. */
export interface Space {
  readonly free: number;
  /** Percent in use, as `df` shows it: of what is there for everybody. */
  readonly used: number;
}

/** Bytes that are about to be written: to containerd's content and snapshots, and to our own files. */
export interface Need {
  readonly images?: number;
  readonly data?: number;
}

export interface DiskOptions {
  /** Of containerd. */
  imageDirs: readonly string[];
  /** Ours. */
  dataDir: string;
  /** Bytes that nothing of ours may take. */
  reserve: number;
  /** Tests give their own. @default statfs(2) */
  measure?: (dir: string) => Promise<Space>;
}

/** The file systems that images take space on, and how much of them is left. */
export class Disk {
  readonly #o: DiskOptions;
  readonly #measure: (dir: string) => Promise<Space>;

  constructor(options: DiskOptions) {
    this.#o = options;
    this.#measure = options.measure ?? measureSpace;
  }

  /** Percent in use on the fullest file system of containerd's; undefined when it cannot be seen from here. */
  async used(): Promise<number | undefined> {
    const spaces = await Promise.all(this.#o.imageDirs.map((dir) => this.#space(dir)));
    const used = spaces.flatMap((space) => (space ? [space.used] : []));
    return used.length === 0 ? undefined : Math.max(...used);
  }

  /** What is wrong with writing so much: nothing, or a DISK_LOW. `what` is the subject of its sentence. */
  async lacks(what: string, need: Need): Promise<AppError | undefined> {
    const needs = new Map<number, { dir: string; bytes: number }>();
    for (const dir of this.#o.imageDirs) {
      const device = await deviceOf(dir);
      if (device !== undefined) needs.set(device, { dir, bytes: need.images ?? 0 }); // once, where it is all on one
    }
    const device = await deviceOf(this.#o.dataDir);
    const shared = device !== undefined && needs.get(device);
    if (device !== undefined)
      needs.set(device, {
        dir: shared ? shared.dir : this.#o.dataDir,
        bytes: (need.data ?? 0) + (shared ? shared.bytes : 0),
      });
    for (const { dir, bytes } of needs.values()) {
      const space = await this.#space(dir);
      if (!space || space.free - bytes >= this.#o.reserve) continue;
      return new AppError("DISK_LOW", [
        what,
        dir,
        formatBytes(space.free),
        formatBytes(bytes),
        formatBytes(this.#o.reserve),
      ]);
    }
    return undefined;
  }

  async #space(dir: string): Promise<Space | undefined> {
    try {
      return await this.#measure(dir);
    } catch (e) {
      if (systemCode(e) === "ENOENT") return undefined; // containerd's own, in a mount namespace of its own
      throw e;
    }
  }
}

async function deviceOf(dir: string): Promise<number | undefined> {
  try {
    return (await stat(dir)).dev;
  } catch (e) {
    if (systemCode(e) === "ENOENT") return undefined;
    throw e;
  }
}

export async function measureSpace(dir: string): Promise<Space> {
  const { blocks, bfree, bavail, bsize } = await statfs(dir);
  const inUse = blocks - bfree;
  return { free: bavail * bsize, used: inUse + bavail === 0 ? 0 : (100 * inUse) / (inUse + bavail) };
}
