import { createServer, type Server as HttpServer, type ServerOptions } from "node:http";
import type { Server as HttpsServer } from "node:https";
import { Server as NetServer } from "node:net";
import { AppError, messageOf, systemCode } from "../base/errors.ts";

export interface ListenerOptions {
  /** An address, or a listening socket that napd was started with. */
  readonly at: { readonly host: string; readonly port: number } | { readonly fd: number };
  /** Setting that says where, for the error. */
  readonly setting: string;
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

/** Fails with LISTEN. Disposing it cuts all connections. */
export async function openListener({ at, setting }: ListenerOptions, options: ServerOptions): Promise<Listener> {
  const server = createServer(options);
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
