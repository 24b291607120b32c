import type { Server, Socket } from "node:net";
import { createServer } from "node:net";
import { AppError, systemCode } from "../base/errors.ts";

/** A listener whose clients may close their side after the request and still wait for the answer. */
export function createListener(accept: (socket: Socket) => void): Server {
  return createServer({ allowHalfOpen: true, noDelay: true }, accept);
}

/** Listens on every interface, IPv6 and IPv4; resolves with the port. Throws AppError LISTEN. */
export async function listenOnAll(listener: Server, port: number, setting: string): Promise<number> {
  try {
    await bind(listener, "::", port);
  } catch (e) {
    if (!["EAFNOSUPPORT", "EADDRNOTAVAIL"].includes(systemCode(e) ?? "")) throw listenError(port, setting, e);
    await bind(listener, "0.0.0.0", port).catch((second) => Promise.reject(listenError(port, setting, second)));
  }
  const address = listener.address();
  return typeof address === "object" && address ? address.port : port;
}

function bind(listener: Server, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  listener.once("error", reject);
  listener.listen({ host, port, backlog: 1024 }, () => {
    listener.off("error", reject);
    resolve();
  });
  return promise;
}

function listenError(port: number, setting: string, e: unknown): AppError {
  return new AppError("LISTEN", [`port ${port}`, systemCode(e) ?? String(e), setting], { cause: e });
}
