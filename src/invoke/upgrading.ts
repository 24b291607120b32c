import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { fieldValue, type ResponseHead } from "../http1/head.ts";
import type { RawEnd } from "../upstream/connection.ts";
import { tunnel } from "./tunnel.ts";

/** Bytes that a caller may send before the function has agreed to the change of protocol. */
const maxEarly = 64 * 1024;

/** The caller's side of a change of protocol that was asked for: its connection, until the function has answered. */
export class Upgrading {
  /** As the caller wrote it, such as `websocket`. */
  readonly protocol: string;
  readonly #socket: Socket;
  readonly #res: ServerResponse;
  readonly #early: Buffer[] = [];
  #size = 0;

  /** `res` writes to `socket` until the change; `early`: what came behind the request's head. */
  constructor(protocol: string, socket: Socket, res: ServerResponse, early: Buffer) {
    this.protocol = protocol;
    this.#socket = socket;
    this.#res = res;
    // the connection is read on, or nobody would notice that the caller has left
    socket.on("data", this.#collect);
    socket.on("end", this.#left);
    if (early.length > 0) this.#collect(early);
  }

  /** Answers 101 and joins the caller with the function; `done` when both connections are closed. */
  join(to: RawEnd, head: ResponseHead, headers: readonly string[], idleMs: number, done: () => void): void {
    const socket = this.#socket;
    socket.off("data", this.#collect);
    socket.off("end", this.#left);
    socket.pause();
    this.#res.detachSocket(socket);
    let text = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${fieldValue(head.fields, "upgrade") || this.protocol}\r\n`;
    for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
    socket.write(`${text}\r\n`, "latin1");
    tunnel({ socket, early: Buffer.concat(this.#early) }, to, idleMs, done);
  }

  /** Who says nothing more before there is an answer has left: a direction that ends by itself comes after the change. */
  readonly #left = (): void => void this.#socket.destroy();

  readonly #collect = (piece: Buffer): void => {
    this.#early.push(piece);
    this.#size += piece.length;
    if (this.#size > maxEarly) this.#socket.pause();
  };
}
