import { AppError, systemCode } from "../../base/errors.ts";
import { bun } from "../runtime.ts";
import { connectTo as bunConnect, listenOn as bunListen } from "./bun.ts";
import { connectTo as nodeConnect, listenOn as nodeListen } from "./node.ts";
import type { Accept, Address, Wire, WireListener, WireServer } from "./wire.ts";

/** Opens a connection. It may be written to at once; that it fails is told to `listener`. */
export function connect(address: Address, listener: WireListener): Wire {
  if (bun && address.tlsName === undefined) return bunConnect(address.host, address.port, listener);
  return nodeConnect(address, listener);
}

/**
 * Listens on every interface, IPv6 and IPv4. Clients may close their side after the request and still wait for the
 * answer. Throws AppError LISTEN, which names `setting`.
 */
export async function listen(port: number, setting: string, accept: Accept): Promise<WireServer> {
  try {
    return await listenOn("::", port, accept);
  } catch (e) {
    if (["EADDRINUSE", "EACCES"].includes(systemCode(e) ?? "")) throw listenError(port, setting, e);
    try {
      return await listenOn("0.0.0.0", port, accept); // a kernel without IPv6
    } catch (second) {
      throw listenError(port, setting, second);
    }
  }
}

const listenOn = bun ? bunListen : nodeListen;

function listenError(port: number, setting: string, e: unknown): AppError {
  return new AppError("LISTEN", [`port ${port}`, systemCode(e) ?? String(e), setting], { cause: e });
}
