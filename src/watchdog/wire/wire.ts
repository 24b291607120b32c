/**
 * One TCP connection, as little of it as HTTP/1.1 needs. In the binary it is a socket of Bun itself (wire/bun.ts):
 * node:net is streams on top of such ones, and costs 4 ms of start, 2 MB for every idle function, and CPU per request
 * (docs/performance.md). It is taken for TLS, and by tests that run on Node (wire/node.ts).
 */
export interface Wire {
  /** Who is told what happens. May be replaced at any time. */
  listener: WireListener;
  /**
   * Sends `parts`, `size` bytes altogether; text is one byte per character. What the kernel does not take is kept.
   * False: that is enough for now, `wireDrain` follows.
   */
  send(parts: readonly (string | Buffer)[], size: number): boolean;
  /** Says after the last byte that nothing more will come (FIN); the other direction stays. */
  end(): void;
  /** Drops the connection after the last byte. */
  close(): void;
  /** Drops the connection at once. `wireClose` follows, later. */
  destroy(): void;
  /** Drops it so that the other side sees an error (RST). */
  reset(): void;
  pause(): void;
  resume(): void;
  /** Bytes that the kernel has not taken yet. */
  readonly unsent: number;
  /** Nothing can be sent any more. */
  readonly ended: boolean;
  /** The connection is gone, or about to go: `destroy` has been called. */
  readonly destroyed: boolean;
  /** `127.0.0.1:8080->127.0.0.1:50000`: ours, theirs. */
  readonly route: string;
}

export interface WireListener {
  /** A connection that `connect` asked for is there. */
  wireOpen?(): void;
  wireData(bytes: Buffer): void;
  /** The other side will send nothing more. */
  wireEnd(): void;
  /** Everything has left. */
  wireDrain(): void;
  /** The connection is gone, or could not be made; nothing follows. */
  wireClose(error: Error | null): void;
}

/** Accepts connections until it is stopped; those that it has accepted live on. */
export interface WireServer {
  readonly port: number;
  stop(): void;
  /** The process may end although it listens. */
  unref(): void;
}

/** Gives every new connection its listener. */
export type Accept = (wire: Wire) => void;

/** Where to connect to; with `tlsName` by TLS, with a certificate that is valid for this name or address. */
export interface Address {
  host: string;
  port: number;
  tlsName?: string;
}

/** Both sides in one line; IPv4 addresses in their usual form, also on an IPv6 socket. */
export function routeOf(address = "", port = 0, remoteAddress = "", remotePort = 0): string {
  const side = (a: string, p: number): string => `${a.replace(/^::ffff:/, "")}:${p}`;
  return `${side(address, port)}->${side(remoteAddress, remotePort)}`;
}

/** All of `parts` as one buffer. */
export function joined(parts: readonly (string | Buffer)[], size: number): Buffer {
  const only = parts[0]!;
  if (parts.length === 1) return typeof only === "string" ? Buffer.from(only, "latin1") : only;
  const all = Buffer.allocUnsafe(size);
  copyTo(all, parts);
  return all;
}

/** Writes `parts` to the start of `target`, which must be large enough. */
export function copyTo(target: Buffer, parts: readonly (string | Buffer)[]): void {
  let at = 0;
  for (const part of parts) {
    if (typeof part === "string") at += target.write(part, at, "latin1");
    else {
      target.set(part, at);
      at += part.length;
    }
  }
}
