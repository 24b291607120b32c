import { randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, unlink } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../base/errors.ts";
import { formatBytes } from "../../base/quantities.ts";
import { isDiskFull } from "./tools.ts";

/** What came over the network, in a file that has no name: the kernel takes it back, however napd ends. */
export interface Spooled extends AsyncDisposable {
  /** Opens for reading, as long as this is not disposed of. */
  readonly path: string;
}

export interface SpoolOptions {
  dir: string;
  maxBytes: number;
  signal: AbortSignal;
}

/** Writes everything to a file. Throws IMAGE_TOO_LARGE, IMAGE_DISK_FULL, what the source throws, or the signal's reason. */
export async function spool(source: AsyncIterable<Buffer>, options: SpoolOptions): Promise<Spooled> {
  await mkdir(options.dir, { recursive: true, mode: 0o700 });
  const name = join(options.dir, `.upload-${randomUUID()}`);
  const file = await open(name, "wx+", 0o600);
  try {
    await unlink(name);
    await write(source, file, options);
    return { path: `/proc/self/fd/${file.fd}`, [Symbol.asyncDispose]: () => file.close() };
  } catch (e) {
    await file.close();
    throw isDiskFull(e) ? new AppError("IMAGE_DISK_FULL", ["archive"], { cause: e }) : e;
  }
}

async function write(source: AsyncIterable<Buffer>, file: FileHandle, { maxBytes, signal }: SpoolOptions) {
  let size = 0;
  for await (const piece of source) {
    signal.throwIfAborted();
    size += piece.length;
    if (size > maxBytes) throw new AppError("IMAGE_TOO_LARGE", [formatBytes(maxBytes)]);
    await file.appendFile(piece); // the whole of it, where write may stop short
  }
  signal.throwIfAborted();
}
