import { createServer, type IncomingMessage, request } from "node:http";
import { type Duplex, duplexPair, type Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Invoke } from "./invoke.ts";

/** A call that comes from napd itself. */
export interface InternalCall {
  /** NAME.NAMESPACE. */
  readonly address: string;
  /** Path and query. */
  readonly target: string;
  /** Names and values in turn, without any framing. */
  readonly headers: readonly string[];
  readonly body: Readable;
  readonly bodyBytes: number;
  /** Ends the call, as a caller does who leaves. */
  readonly signal: AbortSignal;
}

/** Makes a call; rejects when it breaks before its answer has begun, the answer's stream fails when it does later. */
export type Deliver = (call: InternalCall) => Promise<IncomingMessage>;

/** Who calls, for X-Forwarded-For: this machine, from no port. */
const here = { remoteAddress: "127.0.0.1", remotePort: 0 };

/**
 * Calls of functions from inside napd, over pairs of streams in memory: what invokes functions speaks HTTP with whoever
 * calls, so these calls go its whole way, with its limits, waits and counts, and without a port that somebody could find.
 */
export function openInternalCalls(invoke: Invoke, maxHeaderBytes: number): Deliver {
  const addresses = new WeakMap<Duplex, string>();
  const limits = { maxHeaderSize: maxHeaderBytes, requestTimeout: 0, headersTimeout: 0, requireHostHeader: false };
  const server = createServer(limits, (req, res) => invoke(req, res, addresses.get(req.socket)!, req.url!));
  server.maxHeadersCount = 0; // counted where they came in
  return ({ address, target, headers, body, bodyBytes, signal }) => {
    const [near, far] = duplexPair();
    addresses.set(far, address);
    Object.assign(far, here);
    // a pair does not tell its other half of an early end
    near.once("close", () => far.destroy());
    far.once("close", () => near.destroy());
    far.on("error", () => {});
    server.emit("connection", far);
    const req = request({
      createConnection: () => near,
      method: "POST",
      path: target,
      headers: [...headers, "Content-Length", String(bodyBytes)],
      maxHeaderSize: maxHeaderBytes,
      signal,
    });
    return new Promise((resolve, reject) => {
      req.once("response", resolve);
      req.on("error", reject);
      pipeline(body, req).catch(reject); // an answer may come before the end of the body
    });
  };
}
