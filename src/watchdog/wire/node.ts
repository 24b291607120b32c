import type { Socket } from "node:net";
import { type Accept, type Address, joined, routeOf, type Wire, type WireListener, type WireServer } from "./wire.ts";

class NodeWire implements Wire {
  listener: WireListener = { wireData() {}, wireEnd() {}, wireDrain() {}, wireClose() {} };
  readonly #socket: Socket;
  #error: Error | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("connect", () => this.listener.wireOpen?.());
    socket.on("data", (bytes) => this.listener.wireData(bytes));
    socket.on("end", () => this.listener.wireEnd());
    for (const event of ["drain", "finish"]) socket.on(event, () => this.listener.wireDrain());
    socket.on("error", (error) => (this.#error ??= error));
    socket.on("close", () => this.listener.wireClose(this.#error));
  }

  get route(): string {
    const { localAddress, localPort, remoteAddress, remotePort } = this.#socket;
    return routeOf(localAddress, localPort, remoteAddress, remotePort);
  }

  get unsent(): number {
    return this.#socket.writableLength;
  }

  get ended(): boolean {
    return this.#socket.destroyed || this.#socket.writableEnded;
  }

  get destroyed(): boolean {
    return this.#socket.destroyed;
  }

  send(parts: readonly (string | Buffer)[], size: number): boolean {
    return this.ended || this.#socket.write(joined(parts, size));
  }

  end(): void {
    this.#socket.end();
  }

  close(): void {
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  reset(): void {
    this.#socket.resetAndDestroy();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }
}

/** Listens on one address. Rejects with the system's error. */
export function listenOn(host: string, port: number, accept: Accept): Promise<WireServer> {
  const { promise, resolve, reject } = Promise.withResolvers<WireServer>();
  // By name: evaluating them costs the binary milliseconds and memory.
  const { createServer } = process.getBuiltinModule("node:net");
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => accept(new NodeWire(socket)));
  server.once("error", reject);
  server.listen({ host, port, backlog: 512 }, () => {
    const address = server.address();
    const found = typeof address === "object" && address ? address.port : port;
    resolve({ port: found, stop: () => server.close(), unref: () => server.unref() });
  });
  return promise;
}

/** Connects; what is sent before it is connected waits. */
export function connectTo({ host, port, tlsName }: Address, listener: WireListener): Wire {
  const wire = new NodeWire(tlsName === undefined ? plain(host, port) : secure(host, port, tlsName));
  wire.listener = listener;
  return wire;
}

function plain(host: string, port: number): Socket {
  return process.getBuiltinModule("node:net").connect({ host, port, noDelay: true, allowHalfOpen: true });
}

function secure(host: string, port: number, name: string): Socket {
  const { isIP } = process.getBuiltinModule("node:net");
  const tls = process.getBuiltinModule("node:tls");
  return tls.connect({ host, port, servername: isIP(name) ? "" : name, ALPNProtocols: ["http/1.1"] });
}
