import { type FileHandle, open } from "node:fs/promises";
import { pipeline, type Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { AppError, isAppError, messageOf, systemCode } from "../../base/errors.ts";
import { formatBytes } from "../../base/quantities.ts";
import { BadTar, type Cursor, readTar, type TarEntry } from "../../base/tar.ts";

/** Pieces that are read of a file at once. */
const readBytes = 256 * 1024;
/** Documents of a compressed archive are kept from the first pass, as each way back is another pass. */
const keptEntryBytes = 64 * 1024;
const keptBytes = 16 * 1024 * 1024;

/** How files begin. */
export const gzipMagic = Buffer.from([0x1f, 0x8b]);
export const zstdMagic = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/**
 * A tar file, plain or compressed with gzip or zstd, whose entries can be read by name in any order. In a compressed
 * one going back means beginning again: read large entries in the order of their offsets, one at a time.
 */
export class Archive implements AsyncDisposable {
  readonly label: string;
  readonly #file: FileHandle;
  readonly #compression: Compression;
  readonly #entries = new Map<string, TarEntry>();
  readonly #kept = new Map<number, Buffer>();
  #cursor: ByteCursor;

  private constructor(label: string, file: FileHandle, compression: Compression) {
    this.label = label;
    this.#file = file;
    this.#compression = compression;
    this.#cursor = new ByteCursor(file, compression);
  }

  /**
   * Reads through all headers. `label` is what error texts call the file. Throws IMAGE_BAD_ARCHIVE, also for a file
   * that is not there, and IMAGE_TOO_LARGE for one that unpacks to more than `maxBytes`.
   */
  static async open(
    path: string,
    signal: AbortSignal,
    { label = path, maxBytes = Number.POSITIVE_INFINITY }: { label?: string; maxBytes?: number } = {},
  ): Promise<Archive> {
    let file: FileHandle | undefined;
    try {
      file = await open(path);
      if (!(await file.stat()).isFile()) throw new BadTar("it is not a regular file");
      const start = Buffer.alloc(4);
      await file.read(start, 0, 4, 0);
      const archive = new Archive(label, file, compressionOf(start));
      await archive.#scan(signal, maxBytes);
      return archive;
    } catch (e) {
      await file?.close();
      throw toBadArchive(label, e);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cursor.close();
    await this.#file.close();
  }

  async #scan(signal: AbortSignal, maxBytes: number): Promise<void> {
    let kept = 0;
    for await (const entry of readTar(this.#cursor)) {
      signal.throwIfAborted();
      if (entry.offset + entry.size > maxBytes) throw new AppError("IMAGE_TOO_LARGE", [formatBytes(maxBytes)]);
      this.#entries.set(entry.name, entry);
      if (
        this.#compression &&
        entry.kind === "file" &&
        entry.size <= keptEntryBytes &&
        kept + entry.size <= keptBytes
      ) {
        kept += entry.size;
        this.#kept.set(entry.offset, await this.#cursor.take(entry.size));
      }
    }
  }

  /** The file of that name, through links; undefined when there is none. */
  find(name: string): TarEntry | undefined {
    let entry = this.#entries.get(name);
    for (let hops = 0; entry?.kind === "link" && hops < 10; hops++) entry = this.#entries.get(entry.target);
    return entry?.kind === "file" ? entry : undefined;
  }

  /** A whole small file. Throws IMAGE_BAD_ARCHIVE when it is larger than `maxBytes`. */
  async readAll(entry: TarEntry, maxBytes: number): Promise<Buffer> {
    if (entry.size > maxBytes) throw this.bad(`${entry.name} is larger than ${maxBytes} bytes`);
    const kept = this.#kept.get(entry.offset);
    if (kept?.length === entry.size) return kept;
    const pieces: Buffer[] = [];
    for await (const piece of this.read(entry)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  /** Content from `offset` on. */
  async *read(entry: TarEntry, offset = 0): AsyncGenerator<Buffer> {
    try {
      const start = entry.offset + offset;
      if (start < this.#cursor.position) {
        this.#cursor.close();
        this.#cursor = new ByteCursor(this.#file, this.#compression);
      }
      const cursor = this.#cursor;
      await cursor.skip(start - cursor.position);
      for (let left = entry.size - offset; left > 0; ) {
        const piece = await cursor.next(left);
        if (!piece) throw new BadTar("it ends too early");
        left -= piece.length;
        yield piece;
      }
    } catch (e) {
      throw toBadArchive(this.label, e);
    }
  }

  bad(why: string, cause?: unknown): AppError {
    return new AppError("IMAGE_BAD_ARCHIVE", [this.label, why], { cause });
  }
}

type Compression = (() => NodeJS.ReadWriteStream & Readable) | undefined;

function compressionOf(start: Buffer): Compression {
  if (start.subarray(0, 2).equals(gzipMagic)) return () => createGunzip();
  return start.equals(zstdMagic) ? () => createZstdDecompress() : undefined;
}

/** Damage, in the words of zlib or ours; a signal's reason and everything else passes. */
function toBadArchive(label: string, e: unknown): unknown {
  if (isAppError(e)) return e;
  const code = systemCode(e) ?? "";
  const isDamage = e instanceof BadTar || /^(?:Z_|ZSTD_|ERR_ZSTD)/.test(code);
  const isAccess = ["ENOENT", "EACCES", "EISDIR", "ENOTDIR", "ELOOP"].includes(code);
  return isDamage || isAccess ? new AppError("IMAGE_BAD_ARCHIVE", [label, messageOf(e)], { cause: e }) : e;
}

/** The (decompressed) bytes of a file, from the front. A plain file is not read where it is skipped. */
export class ByteCursor implements Cursor {
  readonly #file: FileHandle;
  readonly #stream: Readable | undefined;
  readonly #pieces: AsyncIterator<Buffer> | undefined;
  #rest: Buffer = Buffer.alloc(0);
  position = 0;

  constructor(file: FileHandle, compression: Compression) {
    this.#file = file;
    if (!compression) return;
    const source = file.createReadStream({ start: 0, autoClose: false, highWaterMark: readBytes });
    // The callback only takes the error: whoever reads the last stream gets it too.
    this.#stream = pipeline(source, compression(), () => {}) as unknown as Readable;
    this.#pieces = this.#stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  close(): void {
    this.#stream?.destroy();
  }

  /** Some bytes, at most `limit`; undefined at the end. */
  async next(limit: number): Promise<Buffer | undefined> {
    if (this.#rest.length === 0) {
      const piece = await this.#pull(limit);
      if (!piece) return undefined;
      this.#rest = piece;
    }
    const piece = this.#rest.subarray(0, limit);
    this.#rest = this.#rest.subarray(piece.length);
    this.position += piece.length;
    return piece;
  }

  async #pull(limit: number): Promise<Buffer | undefined> {
    if (this.#pieces) {
      const next = await this.#pieces.next();
      return next.done ? undefined : next.value;
    }
    const { bytesRead, buffer } = await this.#file.read(
      Buffer.allocUnsafe(Math.min(limit, readBytes)),
      0,
      null,
      this.position,
    );
    return bytesRead === 0 ? undefined : buffer.subarray(0, bytesRead);
  }

  async take(bytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let left = bytes; left > 0; ) {
      const piece = await this.next(left);
      if (!piece) break;
      pieces.push(piece);
      left -= piece.length;
    }
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }

  async skip(bytes: number): Promise<void> {
    if (this.#pieces) {
      for (let left = bytes; left > 0; ) {
        const piece = await this.next(left);
        if (!piece) throw new BadTar("it ends too early");
        left -= piece.length;
      }
      return;
    }
    const inHand = Math.min(bytes, this.#rest.length);
    this.#rest = this.#rest.subarray(inHand);
    this.position += bytes;
  }
}
