import { appendFile, mkdir, open, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf, systemCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type ReplicaIdentity, replicaId } from "../functions/backend.ts";
import { compact, decodeMarks, encodeMarks, endOf, type Marks, maxMarks, startOf } from "./marks.ts";

/** Frees the first `length` bytes of a file and leaves its size and everything behind them alone. */
export type Punch = (file: string, length: number) => Promise<void>;

/** Marks in memory: enough for who follows, so that only who reads from far back asks the disk. */
const recentMarks = 64;
/** Holes are made of whole blocks. */
const blockBytes = 4096;
/** Before an offset comes near the 16 TiB that ext4 allows in a file, it begins anew. */
const maxOffset = 2 ** 42;

/**
 * What one replica says, in the file that containerd's shim appends to, and the marks beside it. Offsets only grow:
 * what is dropped from the front becomes a hole, under the shim's hands and without a line lost in between.
 */
export class LogFile {
  readonly identity: ReplicaIdentity;
  readonly instance: string;
  readonly path: string;
  readonly #marksPath: string;
  readonly #punch: Punch;
  readonly #log: Logger;
  /** A process may write to it. */
  live = false;
  /** Changes when offsets lose their meaning, because the file was emptied. */
  epoch = 0;
  /** Ms since the epoch of the last write. */
  writtenAt = 0;
  #size = 0;
  /** What lies before it is gone, or will be in a moment. */
  #start = 0;
  /** What lies before it takes no space. */
  #punched = 0;
  /** The latest marks, and how many numbers at their end are not on disk. */
  #recent: number[] = [];
  #unsaved = 0;
  #marksOnDisk = 0;
  /** Those on disk are not fit to be continued: they are written anew. */
  #torn = false;
  #loading: Promise<void> | null = null;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(identity: ReplicaIdentity, path: string, punch: Punch, log: Logger) {
    this.identity = identity;
    this.instance = replicaId(identity);
    this.path = path;
    this.#marksPath = path.replace(/\.log$/, ".times");
    this.#punch = punch;
    this.#log = log;
  }

  /** Bytes that have their marks; what lies behind them is not to be read yet. */
  get size(): number {
    return this.#size;
  }

  get start(): number {
    return this.#start;
  }

  /** Bytes on disk, marks included. */
  get heldBytes(): number {
    return this.#size - this.#punched + 16 * this.#marksOnDisk;
  }

  /** Makes the file, which only root may read, for a shim to append to. One that is there goes on. */
  async create(): Promise<void> {
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    await (await open(this.path, "a", 0o600)).close();
  }

  /** What it takes, before anybody has read its marks: sums are asked for at every start, of every file. */
  async measure(): Promise<void> {
    const { size, blocks, mtimeMs } = await stat(this.path);
    this.#size = size;
    this.#punched = Math.max(0, size - blocks * 512);
    this.writtenAt = mtimeMs;
  }

  /** Looks how far the file has grown and marks it. Whether there was anything new. */
  refresh(): Promise<boolean> {
    return this.#inTurn(() => this.#refresh());
  }

  /** Writes down the marks that are only in memory. */
  save(): Promise<void> {
    return this.#inTurn(() => this.#save());
  }

  /** Drops all but the last `keep` bytes, in whole blocks. */
  cut(keep: number): Promise<void> {
    return this.#inTurn(() => this.#cut(keep));
  }

  /** Marks from `offset` on at least. */
  marksFrom(offset: number): Promise<Marks> {
    return this.#inTurn(async () => (startOf(this.#recent) <= offset ? this.#recent.slice() : this.#allMarks()));
  }

  remove(): Promise<void> {
    return this.#inTurn(async () => {
      const files = [this.path, this.#marksPath, `${this.#marksPath}~`];
      await Promise.all(files.map((file) => rm(file, { force: true })));
      this.#size = this.#start = this.#punched = this.#marksOnDisk = 0;
    });
  }

  /** One thing after the other, and first of all the marks that an earlier napd left. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(async () => {
      this.#loading ??= this.#load();
      await this.#loading.catch((e) => {
        this.#loading = null; // tried again by whoever comes next
        throw e;
      });
      return work();
    });
    this.#turn = result.catch(() => {});
    return result;
  }

  async #load(): Promise<void> {
    const found = await stat(this.path).catch(ignoreMissing);
    const marks = decodeMarks((await readFile(this.#marksPath).catch(ignoreMissing)) ?? Buffer.alloc(0));
    const fits = marks.length > 0 && endOf(marks) <= (found?.size ?? 0);
    if (!fits) {
      await this.#restart(found?.birthtimeMs ?? 0);
      return;
    }
    this.#recent = marks.slice(-2 * recentMarks);
    this.#marksOnDisk = marks.length / 2;
    this.#start = this.#punched = startOf(marks);
    this.#size = endOf(marks);
    this.writtenAt = marks.at(-1)!;
  }

  /** A file without marks, or with those of another: nothing is known but that it begins. */
  async #restart(time: number): Promise<void> {
    this.#start = this.#punched = this.#size = 0;
    this.epoch++;
    this.#recent = [0, time];
    this.#unsaved = 2;
    this.#marksOnDisk = 0;
    await rm(this.#marksPath, { force: true });
  }

  async #refresh(): Promise<boolean> {
    const found = await stat(this.path).catch(ignoreMissing);
    if (!found || found.size === this.#size) return false;
    if (found.size < this.#size) await this.#restart(found.mtimeMs); // somebody emptied it
    this.#size = found.size;
    this.writtenAt = found.mtimeMs;
    this.#recent.push(found.size, found.mtimeMs);
    this.#unsaved += 2;
    if (this.#unsaved >= 2 * recentMarks) await this.#save();
    return true;
  }

  /** On a full disk marks wait in memory, the newest of them: older lines get a later time than theirs. */
  async #save(): Promise<void> {
    if (this.#unsaved === 0) return;
    try {
      if (this.#torn || this.#marksOnDisk >= maxMarks) {
        await this.#rewrite(compact(await this.#allMarks(), this.#start));
        return;
      }
      await appendFile(this.#marksPath, encodeMarks(this.#recent.slice(-this.#unsaved)), { mode: 0o600 });
      this.#saved(this.#marksOnDisk + this.#unsaved / 2);
    } catch (e) {
      this.#log.debug({ file: this.path, err: messageOf(e) }, "times of a log could not be written down");
      this.#keepLatest();
    }
  }

  #keepLatest(): void {
    this.#recent = this.#recent.slice(-2 * recentMarks);
    this.#unsaved = Math.min(this.#unsaved, this.#recent.length);
    this.#torn = true;
  }

  #saved(marksOnDisk: number): void {
    this.#marksOnDisk = marksOnDisk;
    this.#unsaved = 0;
    this.#torn = false;
    this.#recent = this.#recent.slice(-2 * recentMarks);
  }

  async #allMarks(): Promise<number[]> {
    const saved = decodeMarks((await readFile(this.#marksPath).catch(ignoreMissing)) ?? Buffer.alloc(0));
    const unsaved = this.#unsaved === 0 ? [] : this.#recent.slice(-this.#unsaved);
    while (saved.length > 0 && unsaved.length > 0 && endOf(saved) >= startOf(unsaved)) saved.splice(-2);
    return [...saved, ...unsaved];
  }

  async #rewrite(marks: number[]): Promise<void> {
    await writeFile(`${this.#marksPath}~`, encodeMarks(marks), { mode: 0o600 });
    await rename(`${this.#marksPath}~`, this.#marksPath);
    this.#recent = marks;
    this.#saved(marks.length / 2);
  }

  /**
   * Marks first, then the hole: in the other order a reader could take a hole for text. But on a full disk the marks
   * can only be written when the hole has made room.
   */
  async #cut(keep: number): Promise<void> {
    const start = Math.floor((this.#size - keep) / blockBytes) * blockBytes;
    if (start <= this.#start) return;
    this.#start = start;
    const marks = compact(await this.#allMarks(), start);
    const fits = await this.#rewrite(marks).then(
      () => true,
      () => false,
    );
    try {
      await this.#punch(this.path, start);
      this.#punched = start;
    } catch (e) {
      this.#log.warn({ file: this.path, err: messageOf(e) }, "the beginning of a log could not be freed");
      if (this.#size - this.#punched > 2 * keep) return this.#empty();
    }
    if (start > maxOffset) return this.#empty();
    if (!fits) await this.#rewrite(marks).catch(() => this.#keepLatest());
  }

  /** For file systems without holes. The shim appends, so it goes on at the new end; what nobody has read is lost. */
  async #empty(): Promise<void> {
    await truncate(this.path, 0);
    await this.#restart(this.writtenAt);
  }
}

function ignoreMissing(e: unknown): undefined {
  if (systemCode(e) !== "ENOENT") throw e;
}
