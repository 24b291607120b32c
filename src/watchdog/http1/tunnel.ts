import type { Wire, WireListener } from "../wire/wire.ts";

/** One side of a tunnel. */
export interface TunnelEnd {
  wire: Wire;
  /** Bytes of it that came early. */
  early: Buffer;
  /** Called when the connection is gone. */
  closed(): void;
}

/**
 * Joins two connections after a change of protocol (a WebSocket, RFC 9110 §7.8): bytes both ways with back-pressure,
 * half-closes passed on, and the end of one is the end of the other.
 */
export function tunnel(a: TunnelEnd, b: TunnelEnd): void {
  a.wire.listener = new Passage(a, b.wire);
  b.wire.listener = new Passage(b, a.wire);
  if (a.early.length > 0) a.wire.listener.wireData(a.early);
  if (b.early.length > 0) b.wire.listener.wireData(b.early);
  a.wire.resume();
  b.wire.resume();
}

/** Brings what one side says to the other. */
class Passage implements WireListener {
  readonly #from: TunnelEnd;
  readonly #to: Wire;

  constructor(from: TunnelEnd, to: Wire) {
    this.#from = from;
    this.#to = to;
  }

  wireData(bytes: Buffer): void {
    if (!this.#to.send([bytes], bytes.length)) this.#from.wire.pause();
  }

  wireEnd(): void {
    this.#to.end();
  }

  wireDrain(): void {
    this.#to.resume();
  }

  /** What was said before still leaves, but nobody waits for an answer to it. */
  wireClose(): void {
    this.#to.close();
    this.#from.closed();
  }
}
