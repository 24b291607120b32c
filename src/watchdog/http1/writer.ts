import type { Socket } from "node:net";

/** Up to this many bytes, pieces are copied together into one buffer; larger ones go to the kernel as they are. */
const COPY_LIMIT = 32 * 1024;

/**
 * Collects what one turn produces for a socket (a head, a piece of body, the end) and hands it over in one write:
 * fewer packets, fewer system calls, and still every piece leaves as soon as it has come.
 */
export class SocketWriter {
  readonly #socket: Socket;
  #parts: (string | Buffer)[] = [];
  #size = 0;
  /** False while the socket holds more than it likes; its `drain` event says when it is true again. */
  writable = true;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Queues text, one byte per character. */
  text(text: string): void {
    this.#parts.push(text);
    this.#size += text.length;
  }

  bytes(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.#size += bytes.length;
  }

  /** Queues a piece of body; `chunked` frames it (RFC 9112 §7.1). */
  body(piece: Buffer, chunked: boolean): void {
    if (chunked) this.text(`${piece.length.toString(16)}\r\n`);
    this.bytes(piece);
    if (chunked) this.text("\r\n");
  }

  /** Hands over what is queued. */
  flush(): void {
    if (this.#size === 0) return;
    const parts = this.#parts;
    const size = this.#size;
    this.#parts = [];
    this.#size = 0;
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    this.writable = size <= COPY_LIMIT ? this.#socket.write(joined(parts, size)) : this.#writeEach(parts);
  }

  #writeEach(parts: (string | Buffer)[]): boolean {
    this.#socket.cork();
    let room = true;
    for (const part of parts)
      room = this.#socket.write(typeof part === "string" ? Buffer.from(part, "latin1") : part) && room;
    this.#socket.uncork();
    return room;
  }
}

function joined(parts: (string | Buffer)[], size: number): Buffer {
  const only = parts[0]!;
  if (parts.length === 1) return typeof only === "string" ? Buffer.from(only, "latin1") : only;
  const all = Buffer.allocUnsafe(size);
  let at = 0;
  for (const part of parts) {
    if (typeof part === "string") at += all.write(part, at, "latin1");
    else {
      all.set(part, at);
      at += part.length;
    }
  }
  return all;
}
