import { createServer, type Server as HttpServer, type ServerOptions } from "node:http";
import { createServer as createTlsServer, type Server as HttpsServer } from "node:https";
import { Server as NetServer, type Socket } from "node:net";
import { AppError, messageOf, systemCode } from "../base/errors.ts";
import type { Certificate } from "./certificate.ts";

export interface ListenerOptions {
  /** An address, or a listening socket that napd was started with. */
  readonly at: { readonly host: string; readonly port: number } | { readonly fd: number };
  /** Setting that says where, for the error. */
  readonly setting: string;
  /** TLS is spoken. */
  readonly certificate?: Certificate;
}

export interface ListensAt {
  readonly host: string;
  readonly port: number;
}

export type Server = HttpServer | HttpsServer;

export interface Listener extends AsyncDisposable {
  readonly server: Server;
  readonly address: ListensAt;
  /** Takes no more connections; those that there are go on. What waits in a socket that was inherited stays there. */
  refuse(): void;
}

/** Connections that wait in the kernel while napd starts; net.core.somaxconn is the limit to this. */
const backlog = 4096;

/** How long a caller may take to come to terms about TLS, ms. */
const handshakeTimeout = 10_000;

/** Fails with LISTEN. Disposing it cuts all connections. */
export async function openListener(
  { at, setting, certificate }: ListenerOptions,
  options: ServerOptions,
): Promise<Listener> {
  const server = certificate ? tlsServer(certificate, options) : createServer(options);
  const sockets = new Set<Socket>();
  if (certificate)
    server.on("connection", (socket: Socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    });
  const where = "fd" in at ? `inherited socket ${at.fd}` : `${at.host}:${at.port}`;
  const fail = (why: string, cause?: unknown) => new AppError("LISTEN", [where, why, setting], { cause });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) =>
      reject(fail(systemCode(cause) === "EADDRINUSE" ? "the port is in use" : messageOf(cause), cause)),
    );
    if ("fd" in at)
      server.listen(at, backlog, resolve); // Node overlooks it among the options then
    else server.listen({ ...at, backlog }, resolve);
  });
  const address = server.address();
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.closeAllConnections();
      for (const socket of sockets) socket.destroy(); // that have not come to HTTP
      server.close(() => resolve());
    });
  if (address === null || typeof address === "string") {
    await close();
    throw fail("it is not one of TCP");
  }
  return {
    server,
    address: { host: address.address, port: address.port },
    // node:http's own also closes connections that are idle at this moment, with a request on its way perhaps
    refuse: () => void NetServer.prototype.close.call(server),
    [Symbol.asyncDispose]: close,
  };
}

function tlsServer(certificate: Certificate, options: ServerOptions): HttpsServer {
  const server = createTlsServer({ ...options, ...certificate.identity, handshakeTimeout });
  certificate.onChange((identity) => server.setSecureContext(identity));
  return server;
}
