import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { AppError, messageOf, systemCode } from "../base/errors.ts";
import type { StoredBody } from "./store.ts";

/** Bytes of a body that go into the database; beyond, a file is cheaper than pages that the log writes twice. */
const inRow = 64 * 1024;

/** Ms that a look at the disk is good for. */
const lookEveryMs = 1000;

export const emptyBody: StoredBody = { bytes: 0, data: new Uint8Array(0), file: null };

/** The bodies of messages, wherever their store has them. */
export interface MessageBodies {
  /** Reads a body to its end and keeps it. Null when there are more than `maxBytes`. */
  keep(source: Readable, maxBytes: number): Promise<StoredBody | null>;
  read(body: StoredBody): Readable;
  /** Of a message that was not stored; the store removes those of messages that it had. */
  drop(body: StoredBody): Promise<void>;
}

/** The bodies of messages, in a directory of their own when they are large. */
export class Bodies implements MessageBodies {
  readonly #dir: string;
  readonly #reserve: number;
  /** Bytes that were free when somebody looked last, without what came since. */
  #free = 0;
  #lookedAt = Number.NEGATIVE_INFINITY;

  /** Bodies that would leave less than `reserve` bytes free for everything else are refused, small ones too. */
  constructor(dir: string, reserve = 0) {
    this.#dir = dir;
    this.#reserve = reserve;
  }

  /**
   * Reads a body to its end; a file is on disk when it resolves. Null when there are more than `maxBytes`: the source
   * is left as it is then, with the rest unread. Fails with the source's error, DISK_FULL or QUEUE_STORE.
   */
  async keep(source: Readable, maxBytes: number): Promise<StoredBody | null> {
    const pieces: Buffer[] = [];
    let bytes = 0;
    let file: FileHandle | null = null;
    const name = randomUUID();
    let isKept = false;
    try {
      for await (const piece of source.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        bytes += piece.length;
        if (bytes > maxBytes) return null;
        await this.#claim(piece.length);
        if (file === null && bytes > inRow) {
          file = await onDisk(open(join(this.#dir, name), "wx", 0o600));
          for (const early of pieces.splice(0)) await onDisk(file.writeFile(early));
        }
        if (file) await onDisk(file.writeFile(piece));
        else pieces.push(piece);
      }
      if (!file) {
        isKept = true;
        // of its own: what is in Node's pool takes the pool along to the database's thread
        const data = new Uint8Array(Buffer.concat(pieces));
        return { bytes, data, file: null };
      }
      await onDisk(file.sync());
      await onDisk(syncDir(this.#dir));
      isKept = true;
      return { bytes, data: null, file: name };
    } finally {
      await file?.close();
      if (file && !isKept) await rm(join(this.#dir, name), { force: true });
    }
  }

  async #claim(bytes: number): Promise<void> {
    if (performance.now() - this.#lookedAt > lookEveryMs) {
      const { bavail, bsize } = await onDisk(statfs(this.#dir));
      this.#free = bavail * bsize;
      this.#lookedAt = performance.now();
    }
    this.#free -= bytes;
    if (this.#free < this.#reserve) throw new AppError("DISK_FULL", ["the queue"]);
  }

  read({ data, file }: StoredBody): Readable {
    return file === null ? Readable.from([data!], { objectMode: false }) : createReadStream(join(this.#dir, file));
  }

  async drop({ file }: StoredBody): Promise<void> {
    if (file !== null) await rm(join(this.#dir, file), { force: true });
  }
}

async function syncDir(dir: string): Promise<void> {
  await using handle = await open(dir, "r");
  await handle.sync();
}

async function onDisk<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (e) {
    if (systemCode(e) === "ENOSPC" || systemCode(e) === "EDQUOT") throw new AppError("DISK_FULL", ["the queue"]);
    throw new AppError("QUEUE_STORE", ["the bodies of the queue", messageOf(e)], { cause: e });
  }
}
