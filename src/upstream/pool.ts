import { Connection } from "./connection.ts";

/**
 * Ms that an unused connection is kept. Servers close theirs after some seconds (gunicorn 2, Node 5, uvicorn 5): kept
 * shorter than that, a request hardly ever meets a connection that is being closed. A new one costs 0.1 ms.
 */
const idleMs = 1000;
/** Unused connections that are kept: contracts/api.md §1.1. */
const maxIdle = 1024;

/** The connections to one replica. As many as there are requests: how many those may be is decided elsewhere. */
export class Pool {
  readonly #host: string;
  readonly #port: number;
  readonly #all = new Set<Connection>();
  /** Those that wait for work; the one used last is at the end, and is used first. */
  readonly #idle: Connection[] = [];
  #sweep: NodeJS.Timeout | null = null;
  /** `IP:PORT`: what the function reads as its Host. */
  readonly authority: string;

  constructor(host: string, port: number) {
    this.#host = host;
    this.#port = port;
    this.authority = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  }

  /** Open connections, busy and idle. */
  get size(): number {
    return this.#all.size;
  }

  /** One that has served before, or a new one. */
  take(): Connection {
    const connection = this.#idle.pop();
    if (!connection) return this.open();
    if (performance.now() - connection.idleSince < idleMs) return connection;
    this.closeIdle();
    connection.destroy();
    return this.open();
  }

  /**
   * A new one. It may be written to at once; a failure to connect is told to its exchange. `isRaw`: for a request that
   * asks for another protocol.
   */
  open(isRaw = false): Connection {
    const connection = new Connection(this.#host, this.#port, this, isRaw);
    this.#all.add(connection);
    return connection;
  }

  /** Takes back a connection whose exchange is complete. */
  giveBack(connection: Connection): void {
    if (this.#idle.length >= maxIdle) {
      connection.destroy();
      return;
    }
    connection.idleSince = performance.now();
    this.#idle.push(connection);
    this.#sweep ??= setInterval(() => this.#closeOld(), idleMs).unref();
  }

  /** Forgets a connection that is closed or was given away. */
  remove(connection: Connection): void {
    this.#all.delete(connection);
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
  }

  /**
   * Closes what is unused. To be called when the replica is frozen: when it wakes, its timers ring all at once, and it
   * closes connections that it thinks idle at the very moment that a request comes.
   */
  closeIdle(): void {
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }

  /** Closes everything; exchanges under way fail with `error`. */
  destroy(error: Error): void {
    this.closeIdle();
    if (this.#sweep) clearInterval(this.#sweep);
    this.#sweep = null;
    for (const connection of [...this.#all]) connection.cut(error);
  }

  #closeOld(): void {
    const oldest = performance.now() - idleMs;
    let old = 0;
    while (old < this.#idle.length && this.#idle[old]!.idleSince < oldest) old++;
    for (const connection of this.#idle.splice(0, old)) connection.destroy();
    if (this.#idle.length > 0 || !this.#sweep) return;
    clearInterval(this.#sweep);
    this.#sweep = null;
  }
}
