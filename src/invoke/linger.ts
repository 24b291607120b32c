import type { Socket } from "node:net";

/** Ms that a connection is still read after an answer that did not wait for the request's body. */
const lingerMs = 1000;

/**
 * Ends a connection whose input was not read to its end: half-closes it and swallows what comes for a moment. Closing
 * at once would reset the connection, and the reset can take the answer away before it is read (RFC 9112 §9.6).
 */
export function linger(socket: Socket): void {
  if (socket.destroyed) return;
  socket.end();
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), lingerMs);
  socket.once("close", () => clearTimeout(timer));
}

/** Makes the end that node:http gives a connection after an answer with `Connection: close` such a one. */
export function lingerAtEnd(socket: Socket): void {
  socket.destroySoon = () => linger(socket);
}
