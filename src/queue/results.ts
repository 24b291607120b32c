import { createHash, randomUUID } from "node:crypto";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";

export interface ResultsOptions {
  /** Bytes of all that are kept; the oldest make room. */
  readonly maxTotalBytes: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What came of a call, without its body. */
export interface ResultHead {
  /** Names and values in turn: the function's, and those of contracts/api.md §4.4. */
  readonly headers: readonly string[];
  /** Of the body that the function gave. */
  readonly bytes: number;
  /** False when that was too large to be kept. */
  readonly isWhole: boolean;
}

export interface KeptResult extends ResultHead {
  readonly body: Readable;
}

/** The parts of a file's name: `EXPIRES-HEAD-BODY-HASH`, so that a directory's listing tells all that is asked of all. */
interface Entry {
  /** Ms since the epoch. */
  readonly expires: number;
  readonly headBytes: number;
  readonly bodyBytes: number;
}

const sweepEveryMs = 60_000;
/** What a file takes besides its bytes, about. */
const blockBytes = 4096;

/**
 * Results of calls for whoever asks for them later: a file each, with the head as JSON and the body behind it. They are
 * not synced: a power cut may take the latest ones, and a file that is not whole is none. Failures are logged, for a
 * call is not worth less because its result could not be kept.
 */
export class Results implements AsyncDisposable {
  readonly #dir: string;
  readonly #o: ResultsOptions;
  /** By hash of the call's id, the oldest first. */
  readonly #entries = new Map<string, Entry>();
  #total = 0;
  readonly #sweeping: NodeJS.Timeout;

  private constructor(dir: string, options: ResultsOptions) {
    this.#dir = dir;
    this.#o = options;
    this.#sweeping = setInterval(() => void this.#sweep(), sweepEveryMs).unref();
  }

  /** With what an earlier napd has left in the directory. Fails with the system's error. */
  static async open(dir: string, options: ResultsOptions): Promise<Results> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const results = new Results(dir, options);
    const names = (await readdir(dir)).map((name) => ({
      name,
      match: /^(\d+)-(\d+)-(\d+)-([0-9a-f]{64})$/.exec(name),
    }));
    names.sort((a, b) => Number(a.match?.[1]) - Number(b.match?.[1]));
    for (const { name, match } of names) {
      if (!match)
        await rm(join(dir, name), { force: true }); // was being written when napd ended
      else await results.#add(match[4]!, { expires: +match[1]!, headBytes: +match[2]!, bodyBytes: +match[3]! });
    }
    await results.#sweep();
    return results;
  }

  /** Keeps a result for `keepMs` ms, in place of an earlier one of the same call. */
  async put(callId: string, keepMs: number, head: ResultHead, body: Readable | null): Promise<void> {
    const text = Buffer.from(JSON.stringify(head));
    const hash = hashOf(callId);
    const bodyBytes = body ? head.bytes : 0;
    const entry = { expires: this.#o.clock.now() + Math.round(keepMs), headBytes: text.length, bodyBytes };
    const draft = join(this.#dir, randomUUID());
    try {
      await using file = await open(draft, "wx", 0o600);
      await file.writeFile(text);
      if (body) await file.writeFile(body);
      await rename(draft, this.#file(hash, entry));
      await this.#add(hash, entry);
      await this.#sweep();
    } catch (e) {
      await rm(draft, { force: true });
      this.#o.log.warn({ callId, err: messageOf(e) }, "the result of an asynchronous call could not be kept");
    }
  }

  /** Undefined when there is none, or none any more. Whoever asks reads its body, or destroys it. */
  async get(callId: string): Promise<KeptResult | undefined> {
    const hash = hashOf(callId);
    const entry = this.#entries.get(hash);
    if (!entry || entry.expires <= this.#o.clock.now()) return undefined;
    try {
      await using stack = new AsyncDisposableStack();
      const file = stack.use(await open(this.#file(hash, entry)));
      const { size } = await file.stat();
      if (size !== entry.headBytes + entry.bodyBytes) return undefined;
      const { buffer } = await file.read(Buffer.alloc(entry.headBytes), 0, entry.headBytes, 0);
      const head = JSON.parse(buffer.toString()) as ResultHead;
      const body = file.createReadStream({ start: entry.headBytes });
      stack.move(); // the stream closes it
      return { ...head, body };
    } catch {
      return undefined; // swept meanwhile, or damaged
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#sweeping);
  }

  /** Takes away what is too old, and the oldest of what is too much. */
  async #sweep(): Promise<void> {
    const now = this.#o.clock.now();
    for (const [hash, { expires }] of this.#entries)
      if (expires <= now || this.#total > this.#o.maxTotalBytes) await this.#remove(hash);
  }

  /** Takes the place of an earlier one. */
  async #add(hash: string, entry: Entry): Promise<void> {
    const old = this.#entries.get(hash);
    if (old) this.#forget(hash, old);
    this.#entries.set(hash, entry);
    this.#total += sizeOf(entry);
    if (old && this.#file(hash, old) !== this.#file(hash, entry)) await rm(this.#file(hash, old), { force: true });
  }

  #forget(hash: string, entry: Entry): void {
    this.#entries.delete(hash);
    this.#total -= sizeOf(entry);
  }

  async #remove(hash: string): Promise<void> {
    const entry = this.#entries.get(hash);
    if (!entry) return;
    this.#forget(hash, entry);
    await rm(this.#file(hash, entry), { force: true });
  }

  #file(hash: string, { expires, headBytes, bodyBytes }: Entry): string {
    return join(this.#dir, `${expires}-${headBytes}-${bodyBytes}-${hash}`);
  }
}

/** Call ids are anybody's texts; file names are not. */
function hashOf(callId: string): string {
  return createHash("sha256").update(callId).digest("hex");
}

function sizeOf({ headBytes, bodyBytes }: Entry): number {
  return headBytes + bodyBytes + blockBytes;
}
