import { randomUUID } from "node:crypto";
import { type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { AppError } from "../base/errors.ts";
import type { ReplicaIdentity } from "../functions/backend.ts";
import type { SleepStats } from "../functions/sleep-stats.ts";
import type { Entry, Table } from "../functions/table.ts";
import { Call } from "./call.ts";
import { Deadlines } from "./deadlines.ts";
import type { CallHeaders } from "./headers.ts";
import { linger } from "./linger.ts";
import { refuse } from "./refuse.ts";
import { Upgrading } from "./upgrading.ts";

/** Sends a request to a function. `address` is NAME or NAME.NAMESPACE, `target` the path and query that it sees. */
export type Invoke = (req: IncomingMessage, res: ServerResponse, address: string, target: string) => void;

/** The same for a request that asks for another protocol; `early` is what came behind its head. */
export type InvokeUpgrade = (
  req: IncomingMessage,
  socket: Socket,
  early: Buffer,
  address: string,
  target: string,
) => void;

export interface InvokeOptions {
  table: Table;
  defaultNamespace: string;
  thaw: (replica: ReplicaIdentity) => Promise<void>;
  /** Takes how long calls waited for a function that slept. */
  waits: SleepStats["waits"];
  /** Ms that an upgraded connection may be silent. */
  tunnelIdleMs: number;
}

/** Methods that are for the gateway itself, not for what is behind it: RFC 9110 §9.3.6, §9.3.8. */
const refusedMethods = new Set(["CONNECT", "TRACE"]);

/**
 * Whether a request asks for a protocol that may be changed to: any but HTTP itself, which would be a way past what is
 * checked here. Who asks for that is answered as if nothing had been asked, which RFC 9110 §7.8 allows.
 */
export function mayUpgrade(req: Pick<IncomingMessage, "headers">): boolean {
  const { upgrade, "content-length": length, "transfer-encoding": encoding } = req.headers;
  if (upgrade === undefined || (length !== undefined && length !== "0") || encoding !== undefined) return false;
  return !upgrade.split(",").some((protocol) => /^\s*(h2c?|http(\/.*)?)\s*$/i.test(protocol));
}

/**
 * The hot loop. With an awake replica a call is dispatched in the same turn of the event loop that it came in: a look
 * into the table, the counts, the dispatch; no promise, no disk, no gRPC, no log line.
 */
export function openInvoke(options: InvokeOptions): { invoke: Invoke; upgrade: InvokeUpgrade } {
  const { table, defaultNamespace, thaw, waits, tunnelIdleMs } = options;
  const services = { deadlines: new Deadlines(), thaw, waits, tunnelIdleMs };

  /** The function that a call is for; undefined when it has been refused. */
  function find(req: IncomingMessage, res: ServerResponse, address: string, ids: CallHeaders): Entry | undefined {
    const key = address.includes(".") ? address : `${address}.${defaultNamespace}`;
    const entry = table.get(key);
    if (!entry) refuse(res, new AppError("FUNCTION_NOT_FOUND", [key]), ids);
    else if (refusedMethods.has(req.method!)) {
      refuse(res, new AppError("METHOD_NOT_ALLOWED", []), ids);
      return undefined;
    }
    return entry;
  }

  return {
    invoke(req, res, address, target) {
      if (req.socket.writableEnded) return; // it came behind an answer that has ended its connection
      const ids = callHeaders(req);
      const entry = find(req, res, address, ids);
      if (entry) new Call(services, req, res, entry, target, ids, null).start();
    },
    upgrade(req, socket, early, address, target) {
      const ids = callHeaders(req);
      const res = responseOn(socket, req);
      const entry = find(req, res, address, ids);
      if (!entry) return;
      const upgrading = new Upgrading(req.headers.upgrade!, socket, res, early);
      new Call(services, req, res, entry, target, ids, upgrading).start();
    },
  };
}

/** Of a call that has just come. */
export function callHeaders(req: IncomingMessage): CallHeaders {
  return {
    callId: (req.headers["x-call-id"] as string | undefined) ?? randomUUID(),
    startTime: `${Date.now()}000000`,
  };
}

/** An answer on a connection that node:http has given away; the connection ends with it. */
function responseOn(socket: Socket, req: IncomingMessage): ServerResponse {
  const res = new ServerResponse(req);
  res.shouldKeepAlive = false;
  res.assignSocket(socket);
  socket.on("error", () => {}); // "close" follows
  socket.on("drain", () => res.emit("drain"));
  res.once("finish", () => {
    res.detachSocket(socket);
    linger(socket);
    res.emit("close");
  });
  return res;
}
