import type { Socket } from "node:net";
import type { RawEnd } from "../upstream/connection.ts";

/** Ms of silence after one direction has ended: most programs end the other one then, and some callers have just left. */
const halfOpenIdleMs = 60_000;
/** Ms that one end may still take what was sent to it after the other end is closed. */
const flushMs = 5000;

/**
 * Joins two sockets after a change of protocol (RFC 9110 §7.8): bytes both ways with back-pressure, each direction
 * ends by itself, and a broken end takes the other one with it. `done` is called once, when both are closed.
 * `idleMs`: how long both directions may be silent before both are closed.
 */
export function tunnel(a: RawEnd, b: RawEnd, idleMs: number, done: () => void): void {
  let open = 2;
  const join = (from: Socket, to: Socket) => {
    from.on("error", () => to.destroy());
    from.once("end", () => a.socket.setTimeout(Math.min(idleMs, halfOpenIdleMs)));
    from.once("close", () => {
      if (--open === 0) done();
      if (to.destroyed) return;
      to.destroySoon();
      const timer = setTimeout(() => to.destroy(), flushMs);
      to.once("close", () => clearTimeout(timer));
    });
  };
  join(a.socket, b.socket);
  join(b.socket, a.socket);
  // whatever passes, in either direction, is read from or written to `a`
  a.socket.setTimeout(idleMs, () => {
    a.socket.destroy();
    b.socket.destroy();
  });
  if (a.early.length > 0) b.socket.write(a.early);
  if (b.early.length > 0) a.socket.write(b.early);
  a.socket.pipe(b.socket);
  b.socket.pipe(a.socket);
}
