import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { AppError, messageOf, systemCode } from "../../base/errors.ts";
import { BadTar, readTar, type TarEntry } from "../../base/tar.ts";
import { ByteCursor, gzipMagic } from "./archive.ts";
import type { Source } from "./ingest.ts";
import { type SpoolOptions, spool } from "./spool.ts";

/** A layer as it came in, unpacked: the same files have the same digest, however they were packed on the way. */
export interface ReceivedLayer extends AsyncDisposable {
  /** Of the tar file. */
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly source: Source;
}

/**
 * Takes a tar file, plain or packed by gzip, into a file without a name, and looks at every entry. Throws
 * IMAGE_BAD_LAYER saying what is wrong, IMAGE_TOO_LARGE for more than `maxBytes` unpacked, and what `spool` throws.
 */
export async function receiveLayer(body: AsyncIterable<Buffer>, options: SpoolOptions): Promise<ReceivedLayer> {
  const hash = createHash("sha256");
  let size = 0;
  async function* counted(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of pieces) {
      hash.update(piece);
      size += piece.length;
      yield piece;
    }
  }
  try {
    const file = await spool(counted(unpacked(body)), options);
    await using undo = new AsyncDisposableStack();
    undo.use(file);
    await checkLayer(file.path, size, options.signal);
    const source = { open: async (offset: number) => createReadStream(file.path, { start: offset }) };
    const kept = undo.move();
    return {
      digest: `sha256:${hash.digest("hex")}`,
      size,
      source,
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  } catch (e) {
    const isDamage = e instanceof BadTar || (systemCode(e) ?? "").startsWith("Z_");
    throw isDamage ? new AppError("IMAGE_BAD_LAYER", [messageOf(e)], { cause: e }) : e;
  }
}

/** What the body is when gzip is taken off it. */
async function* unpacked(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const pieces = body[Symbol.asyncIterator]();
  let start: Buffer = Buffer.alloc(0);
  while (start.length < gzipMagic.length) {
    const next = await pieces.next();
    if (next.done) break;
    start = Buffer.concat([start, next.value]);
  }
  const whole = restOf(start, pieces);
  if (!start.subarray(0, gzipMagic.length).equals(gzipMagic)) return yield* whole;
  // The callback only takes the error: whoever reads the last stream gets it too.
  yield* pipeline(Readable.from(whole, { objectMode: false }), createGunzip(), () => {});
}

async function* restOf(start: Buffer, pieces: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  if (start.length > 0) yield start;
  for (let next = await pieces.next(); !next.done; next = await pieces.next()) yield next.value;
}

/** Throws BadTar. */
async function checkLayer(path: string, size: number, signal: AbortSignal): Promise<void> {
  await using file = await open(path);
  const files = new Set<string>();
  if (size === 0) throw new BadTar("it is empty");
  for await (const entry of readTar(new ByteCursor(file, undefined))) {
    signal.throwIfAborted();
    if (entry.offset + entry.size > size) throw new BadTar("it ends too early");
    const why = refusal(entry, files);
    if (why) throw new BadTar(`${why} "${entry.name.slice(0, 100)}"`);
    if (entry.kind === "file" || entry.type === "1") files.add(entry.name);
  }
}

const opaque = ".wh..wh..opq";

/**
 * What is wrong with an entry besides what `readTar` refuses (names and links that lead out, sparse files). containerd
 * unpacks within the snapshot whatever comes, so this protects from senseless images rather than from attacks.
 * Whiteouts: OCI image spec, layer.md.
 */
function refusal({ name, type, kind, target }: TarEntry, files: ReadonlySet<string>): string | undefined {
  if (type === "3" || type === "4") return "it has the device";
  if (type === "6") return "it has the named pipe";
  if (kind === "other" && type !== "5") return `it has an entry of the unknown type ${JSON.stringify(type)},`;
  if (type === "1" && !files.has(target)) return "its hard link leads to no file before it:";
  if (name === "" && type !== "5") return "it has an entry without a name,";
  const base = name.slice(name.lastIndexOf("/") + 1);
  const hides = base.startsWith(".wh.") ? base.slice(".wh.".length) : undefined;
  if (hides !== undefined && base !== opaque && (/^\.{0,2}$/.test(hides) || hides.startsWith(".wh.")))
    return "it has the whiteout of nothing";
  return undefined;
}
