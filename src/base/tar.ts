/**
 * Reading and writing of tar archives: POSIX.1-1988 ustar, POSIX.1-2001 pax headers for long names and large sizes, and
 * GNU's older ways for the same. Our own because it is short, and archives of images and backups need no more: the
 * layers of images are containerd's to unpack.
 */

/** Something that is not a tar archive, or one that is not taken; the message says why. */
export class BadTar extends Error {
  override readonly name = "BadTar";
}

export interface TarEntry {
  /** Without `./`; never absolute, never with `..`. */
  readonly name: string;
  /** A link of either kind has a `target` in place of content; others are directories, devices and the like. */
  readonly kind: "file" | "link" | "other";
  /** The letter that stands for it in the header: `1` is a hard link, `2` a symbolic one, `5` a directory. */
  readonly type: string;
  /** What a link leads to, as a name of this archive. */
  readonly target: string;
  /** Bytes of content. */
  readonly size: number;
  /** Where the content begins in the archive. */
  readonly offset: number;
}

/** A position in a stream of bytes that only goes forward. */
export interface Cursor {
  readonly position: number;
  /** The next `bytes` bytes, fewer only at the end. */
  take(bytes: number): Promise<Buffer>;
  skip(bytes: number): Promise<void>;
}

/** A cursor over what comes in pieces. */
export class StreamCursor implements Cursor {
  readonly #pieces: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  position = 0;

  constructor(pieces: AsyncIterable<Buffer>) {
    this.#pieces = pieces[Symbol.asyncIterator]();
  }

  /** Some bytes, at most `limit`; undefined at the end. */
  async next(limit: number): Promise<Buffer | undefined> {
    while (this.#rest.length === 0) {
      const next = await this.#pieces.next();
      if (next.done) return undefined;
      this.#rest = next.value;
    }
    const piece = this.#rest.subarray(0, limit);
    this.#rest = this.#rest.subarray(piece.length);
    this.position += piece.length;
    return piece;
  }

  async take(bytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let left = bytes; left > 0; ) {
      const piece = await this.next(left);
      if (!piece) break;
      pieces.push(piece);
      left -= piece.length;
    }
    return Buffer.concat(pieces);
  }

  async skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0; ) {
      const piece = await this.next(left);
      if (!piece) throw new BadTar("it ends too early");
      left -= piece.length;
    }
  }
}

const blockBytes = 512;
/** An image has some hundred entries; a bomb of headers shall not fill our memory. */
const maxEntries = 100_000;
/** For pax headers and long names. */
const maxExtraBytes = 1024 * 1024;
const maxNameBytes = 4096;

interface Extra {
  path?: string;
  linkpath?: string;
  size?: number;
}

/** All entries in their order, without their content. Throws BadTar. */
export async function* readTar(cursor: Cursor): AsyncGenerator<TarEntry> {
  let extra: Extra = {};
  for (let count = 0; ; ) {
    const block = await cursor.take(blockBytes);
    // Two blocks of zeros end an archive; some writers leave them away.
    if (block.length === 0 || block.every((byte) => byte === 0)) return;
    if (block.length < blockBytes) throw new BadTar("it ends too early");
    checkSum(block);
    const type = String.fromCharCode(block[156]!);
    const size = extra.size ?? numberIn(block, 124, 12);

    if (type === "x" || type === "L" || type === "K") {
      if (size > maxExtraBytes) throw new BadTar("it has a header of absurd length");
      const text = await contentOf(cursor, size);
      if (type === "x") extra = { ...extra, ...readPax(text) };
      else extra = { ...extra, [type === "L" ? "path" : "linkpath"]: text.toString().replace(/\0.*$/s, "") };
      continue;
    }
    if (type === "g") {
      await skipContent(cursor, size);
      continue;
    }
    if (type === "S") throw new BadTar("it has a sparse file");
    if (++count > maxEntries) throw new BadTar(`it has more than ${maxEntries} entries`);
    const entry = toEntry(block, type, size, extra, cursor.position);
    extra = {};
    yield entry;
    // Whoever read the content has moved the cursor, perhaps only in part.
    await cursor.skip(entry.offset + padded(size) - cursor.position);
  }
}

function toEntry(block: Buffer, type: string, size: number, extra: Extra, offset: number): TarEntry {
  const name = normalise(extra.path ?? nameIn(block));
  const isLink = type === "1" || type === "2";
  const isFile = type === "0" || type === "\0" || type === "7";
  const text = isLink ? (extra.linkpath ?? textIn(block, 157, 100)) : "";
  // A hard link names an entry of the archive; a symbolic one is relative to where it stands.
  const target = type === "2" && !text.startsWith("/") ? `${name.replace(/[^/]*$/, "")}${text}` : text;
  return {
    name,
    kind: isLink ? "link" : isFile ? "file" : "other",
    type,
    target: isLink ? resolve(target) : "",
    size,
    offset,
  };
}

function checkSum(block: Buffer): void {
  let sum = 0;
  for (let i = 0; i < blockBytes; i++) sum += i >= 148 && i < 156 ? 0x20 : block[i]!;
  if (sum !== numberIn(block, 148, 8)) throw new BadTar("it is no tar file, or damaged");
}

/** Octal text, or GNU's base 256 when the first bit is set. */
function numberIn(block: Buffer, at: number, length: number): number {
  const field = block.subarray(at, at + length);
  let value = 0;
  if (field[0]! & 0x80) {
    value = field[0]! & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
  } else {
    const text = textIn(block, at, length).trim();
    if (!/^[0-7]*$/.test(text)) throw new BadTar("it is no tar file, or damaged");
    value = text === "" ? 0 : Number.parseInt(text, 8);
  }
  if (!Number.isSafeInteger(value)) throw new BadTar("it has an entry of absurd size");
  return value;
}

function textIn(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at);
  return block.toString("utf8", at, end < 0 ? at + length : Math.min(end, at + length));
}

/** ustar has room for a prefix; GNU uses the same bytes for other things, and the magic tells them apart. */
function nameIn(block: Buffer): string {
  const name = textIn(block, 0, 100);
  const prefix = block.toString("latin1", 257, 263) === "ustar\0" ? textIn(block, 345, 155) : "";
  return prefix ? `${prefix}/${name}` : name;
}

/** Records `LENGTH KEY=VALUE\n`, the length in bytes including itself. */
function readPax(text: Buffer): Extra {
  const extra: Extra = {};
  for (let at = 0; at < text.length && text[at] !== 0; ) {
    const space = text.indexOf(0x20, at);
    const length = Number(text.toString("latin1", at, space < 0 ? at : space));
    if (!Number.isInteger(length) || length < 5 || at + length > text.length)
      throw new BadTar("it has a damaged header");
    const record = text.toString("utf8", space + 1, at + length - 1);
    const [key, value] = [record.slice(0, record.indexOf("=")), record.slice(record.indexOf("=") + 1)];
    if (key === "path" || key === "linkpath") extra[key] = value;
    if (key === "size") extra.size = sizeOf(value);
    if (key.startsWith("GNU.sparse.")) throw new BadTar("it has a sparse file");
    at += length;
  }
  return extra;
}

function sizeOf(text: string): number {
  const size = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(size)) throw new BadTar("it has an entry of absurd size");
  return size;
}

function padded(size: number): number {
  return Math.ceil(size / blockBytes) * blockBytes;
}

async function contentOf(cursor: Cursor, size: number): Promise<Buffer> {
  const content = await cursor.take(padded(size));
  if (content.length < padded(size)) throw new BadTar("it ends too early");
  return content.subarray(0, size);
}

async function skipContent(cursor: Cursor, size: number): Promise<void> {
  await cursor.skip(padded(size));
}

/** Nothing is ever written under these names; but who uses such has a purpose that is not ours. */
function normalise(name: string): string {
  if (Buffer.byteLength(name) > maxNameBytes) throw new BadTar("it has a name of absurd length");
  if (name.startsWith("/")) throw new BadTar(`it has the absolute name "${name.slice(0, 100)}"`);
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) throw new BadTar(`it has the name "${name.slice(0, 100)}", which leads out of it`);
  return parts.join("/");
}

/** As `normalise`, but `..` is taken for what it is as long as it stays inside. */
function resolve(target: string): string {
  const found: string[] = [];
  for (const part of target.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") found.push(part);
    else if (found.pop() === undefined)
      throw new BadTar(`it has a link to "${target.slice(0, 100)}", which leads out of it`);
  }
  return normalise(found.join("/"));
}

// --- writing -------------------------------------------------------------------------------------------------------

/** What an entry's header says. */
export interface TarHead {
  readonly name: string;
  /** @default "0", a file; "2" is a symbolic link, "5" a directory. */
  readonly type?: string;
  /** Bytes of content. @default 0 */
  readonly size?: number;
  readonly mode: number;
  /** Seconds since the epoch. */
  readonly mtime: number;
  /** Of a link. @default "" */
  readonly target?: string;
  /** Owner. @default root */
  readonly uid?: number;
  readonly gid?: number;
}

/** What goes before an entry's content: its header, with a pax header before it for what does not fit into that. */
export function tarHeader(head: TarHead): Buffer {
  const { name, type = "0", size = 0, mtime, target = "" } = head;
  const records = [
    ...(Buffer.byteLength(name) > maxFieldBytes ? [paxRecord("path", name)] : []),
    ...(Buffer.byteLength(target) > maxFieldBytes ? [paxRecord("linkpath", target)] : []),
    ...(size > maxOctalSize ? [paxRecord("size", String(size))] : []),
  ];
  const block = headerBlock({ uid: 0, gid: 0, ...head, type, size: size > maxOctalSize ? 0 : size, target });
  if (records.length === 0) return block;
  const extra = Buffer.concat(records);
  const before = headerBlock({
    ...{ name: "pax", type: "x", size: extra.length, mode: 0o600, mtime, target: "", uid: 0, gid: 0 },
  });
  return Buffer.concat([before, extra, tarPadding(extra.length), block]);
}

/** What goes behind a file's content. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc(padded(size) - size);
}

/** What goes behind the last file. */
export const tarEnd = Buffer.alloc(2 * blockBytes);

/** Of a name in a header. */
const maxFieldBytes = 100;
/** Eleven octal digits. */
const maxOctalSize = 8 ** 11 - 1;

function headerBlock({ name, type, size, mode, mtime, target, uid, gid }: Required<TarHead>): Buffer {
  const block = Buffer.alloc(blockBytes);
  const octal = (value: number, at: number, length: number) =>
    block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
  Buffer.from(name).copy(block, 0, 0, maxFieldBytes);
  octal(mode, 100, 8);
  octal(uid, 108, 8);
  octal(gid, 116, 8);
  octal(size, 124, 12);
  octal(mtime, 136, 12);
  block.write(" ".repeat(8), 148, "latin1");
  block.write(type, 156, "latin1");
  Buffer.from(target).copy(block, 157, 0, maxFieldBytes);
  block.write("ustar\x0000", 257, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** POSIX.1-2001 pax: the length counts its own digits. */
function paxRecord(key: string, value: string): Buffer {
  const rest = ` ${key}=${value}\n`;
  let length = Buffer.byteLength(rest) + 1;
  while (Buffer.byteLength(`${length}${rest}`) !== length) length++;
  return Buffer.from(`${length}${rest}`);
}
