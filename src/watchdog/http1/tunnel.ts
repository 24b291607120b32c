import type { Socket } from "node:net";

/**
 * Joins two sockets after a change of protocol (a WebSocket, RFC 9110 §7.8): bytes both ways with back-pressure,
 * half-closes passed on, and the end of one is the end of the other. Resolves when both are closed.
 */
export function tunnel(a: { socket: Socket; early: Buffer }, b: { socket: Socket; early: Buffer }): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let open = 2;
  const closed = (other: Socket): void => {
    other.destroySoon();
    if (--open === 0) resolve();
  };
  a.socket.on("close", () => closed(b.socket));
  b.socket.on("close", () => closed(a.socket));
  if (a.early.length > 0) b.socket.write(a.early);
  if (b.early.length > 0) a.socket.write(b.early);
  a.socket.pipe(b.socket);
  b.socket.pipe(a.socket);
  return promise;
}
