import { type BunSocket, type BunSocketHandlers, bun } from "../runtime.ts";
import { type Accept, copyTo, joined, routeOf, type Wire, type WireListener, type WireServer } from "./wire.ts";

/** Up to this many bytes, parts are copied together and leave in one system call. */
const COPY_LIMIT = 32 * 1024;

/** Where parts are put together: the kernel copies at once what it takes, so one place serves all connections. */
const scratch = Buffer.allocUnsafeSlow(COPY_LIMIT);

class BunWire implements Wire {
  listener: WireListener = nobody;
  #socket: BunSocket<BunWire> | null;
  #waiting: Buffer[] = [];
  unsent = 0;
  ended = false;
  destroyed = false;
  #inputEnded = false;
  #paused = false;
  #closing = false;
  #closed = false;

  /** `socket`: null until it is connected. */
  constructor(socket: BunSocket<BunWire> | null) {
    this.#socket = socket;
  }

  get route(): string {
    const s = this.#socket;
    return routeOf(s?.localAddress, s?.localPort, s?.remoteAddress, s?.remotePort);
  }

  send(parts: readonly (string | Buffer)[], size: number): boolean {
    if (this.ended) return true;
    if (this.unsent > 0 || !this.#socket) {
      this.#keep(joined(parts, size));
      return false;
    }
    return size <= COPY_LIMIT ? this.#sendCopy(parts, size) : this.#sendEach(parts);
  }

  #sendCopy(parts: readonly (string | Buffer)[], size: number): boolean {
    copyTo(scratch, parts);
    const sent = this.#write(scratch, size);
    if (sent === size) return true;
    this.#keep(Buffer.from(scratch.subarray(sent, size)));
    return false;
  }

  #sendEach(parts: readonly (string | Buffer)[]): boolean {
    for (const part of parts) {
      const bytes = typeof part === "string" ? Buffer.from(part, "latin1") : part;
      const sent = this.unsent > 0 ? 0 : this.#write(bytes, bytes.length);
      if (sent < bytes.length) this.#keep(bytes.subarray(sent));
    }
    return this.unsent === 0;
  }

  /**
   * How many of the first `size` bytes are off our hands. A broken connection takes them all: when reading is paused,
   * Bun tells nobody that the other side has gone, and this is where it shows.
   */
  #write(bytes: Buffer, size: number): number {
    const sent = this.#socket!.write(bytes, 0, size);
    if (sent >= 0) return sent;
    this.destroy();
    return size;
  }

  #keep(bytes: Buffer): void {
    this.#waiting.push(bytes);
    this.unsent += bytes.length;
  }

  end(): void {
    if (this.ended) return;
    this.ended = true;
    if (this.unsent === 0 && this.#socket) this.#finish();
  }

  close(): void {
    this.#closing = true;
    if (this.unsent === 0) this.destroy();
    else this.ended = true;
  }

  /** FIN, or the end of it all when nobody has anything more to say. */
  #finish(): void {
    if (this.#inputEnded || this.#closing) this.destroy();
    else this.#socket!.shutdown();
  }

  destroy(): void {
    this.ended = true;
    if (this.destroyed) return;
    this.destroyed = true;
    if (this.#socket) this.#socket.end();
    else this.closed(null);
  }

  reset(): void {
    if (!this.destroyed) this.#socket?.terminate();
    this.destroy();
  }

  pause(): void {
    this.#paused = true;
    this.#socket?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#socket?.resume();
  }

  // --- from Bun ---------------------------------------------------------------------------------------------------

  opened(socket: BunSocket<BunWire>): void {
    this.#socket = socket;
    if (this.destroyed) {
      socket.end();
      return;
    }
    if (this.#paused) socket.pause();
    this.listener.wireOpen?.();
    this.drained();
  }

  /** Bun also says this when nothing waits. */
  drained(): void {
    if (this.destroyed || this.unsent === 0) return;
    while (this.#waiting.length > 0 && !this.destroyed) {
      const bytes = this.#waiting[0]!;
      const sent = this.#write(bytes, bytes.length);
      this.unsent -= sent;
      if (sent < bytes.length) {
        this.#waiting[0] = bytes.subarray(sent);
        return;
      }
      this.#waiting.shift();
    }
    if (this.destroyed) return;
    if (this.ended) this.#finish();
    if (!this.destroyed) this.listener.wireDrain();
  }

  inputEnded(): void {
    if (this.#inputEnded || this.destroyed) return;
    this.#inputEnded = true;
    this.listener.wireEnd();
  }

  /** Bun says so within `end`; whoever calls that is not prepared to hear of it there. */
  closed(error: Error | null): void {
    if (this.#closed) return;
    this.#closed = this.destroyed = this.ended = true;
    this.#waiting = [];
    this.unsent = 0;
    queueMicrotask(() => this.listener.wireClose(error));
  }
}

const nobody: WireListener = { wireData() {}, wireEnd() {}, wireDrain() {}, wireClose() {} };

/** One set for all: Bun makes a function object of native code for each of them. */
function handlers(accept: Accept): BunSocketHandlers<BunWire> {
  return {
    open: (socket) => {
      if (socket.data) socket.data.opened(socket);
      else {
        const wire = new BunWire(socket);
        socket.data = wire;
        accept(wire);
      }
    },
    data: (socket, bytes) => {
      if (!socket.data.destroyed) socket.data.listener.wireData(bytes);
    },
    drain: (socket) => socket.data.drained(),
    end: (socket) => socket.data.inputEnded(),
    close: (socket, error) => socket.data.closed(error ?? null),
    connectError: (socket, error) => socket.data.closed(error),
    error: (_socket, error) => {
      // Only what the functions above throw: a bug. Thrown anew where the process hears of it.
      queueMicrotask(() => {
        throw error;
      });
    },
  };
}

/** Listens on one address. Throws the system's error. */
export function listenOn(hostname: string, port: number, accept: Accept): WireServer {
  const listener = bun!.listen({
    ...{ hostname, port, exclusive: true, allowHalfOpen: true },
    socket: handlers(accept),
  });
  return { port: listener.port, stop: () => listener.stop(false), unref: () => listener.unref() };
}

let clients: BunSocketHandlers<BunWire> | undefined;

/** Connects; what is sent before it is connected waits. */
export function connectTo(hostname: string, port: number, listener: WireListener): Wire {
  const wire = new BunWire(null);
  wire.listener = listener;
  clients ??= handlers(() => {});
  const connecting = bun!.connect({ hostname, port, allowHalfOpen: true, data: wire, socket: clients });
  connecting.catch((error) => wire.closed(error));
  return wire;
}
