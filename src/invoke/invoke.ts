import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError, messageOf } from "../base/errors.ts";
import type { ReplicaIdentity } from "../functions/backend.ts";
import type { Entry, Table } from "../functions/table.ts";
import { Exchange } from "./exchange.ts";
import type { CallHeaders } from "./headers.ts";
import { refuse } from "./refuse.ts";

/** Sends a request to a function. `address` is NAME or NAME.NAMESPACE, `target` the path and query that it sees. */
export type Invoke = (req: IncomingMessage, res: ServerResponse, address: string, target: string) => void;

export interface InvokeOptions {
  table: Table;
  defaultNamespace: string;
  thaw: (replica: ReplicaIdentity) => Promise<void>;
}

/**
 * The hot loop. With an awake replica a call is dispatched in the same turn of the event loop that it came in: a look
 * into the table, the count, the dispatch; no promise, no disk, no gRPC, no log line.
 */
export function openInvoke({ table, defaultNamespace, thaw }: InvokeOptions): Invoke {
  return (req, res, address, target) => {
    const call: CallHeaders = {
      callId: (req.headers["x-call-id"] as string | undefined) ?? randomUUID(),
      startTime: `${Date.now()}000000`,
    };
    const key = address.includes(".") ? address : `${address}.${defaultNamespace}`;
    const entry = table.get(key);
    if (!entry) {
      refuse(res, new AppError("FUNCTION_NOT_FOUND", [key]), call);
      return;
    }
    const begin = performance.now();
    entry.calls.begin();
    res.once("close", () => entry.calls.end(res.statusCode, (performance.now() - begin) / 1000));
    const deadline = begin + entry.policy.timeoutMs;
    const replica = entry.pick();
    if (replica?.state === "ready") new Exchange(req, res, entry, replica, call, deadline).dispatch(target);
    else void wakeAndDispatch(req, res, entry, call, deadline, target);
  };

  /** The slow way: nobody is awake. The caller waits, bounded by the function's timeout. */
  async function wakeAndDispatch(
    req: IncomingMessage,
    res: ServerResponse,
    entry: Entry,
    call: CallHeaders,
    deadline: number,
    target: string,
  ): Promise<void> {
    try {
      if (!entry.pick()) await within(entry.wake(), deadline, entry, res);
      const replica = entry.pick();
      if (!replica) throw new AppError("FUNCTION_UNAVAILABLE", [entry.key, "its replica was lost while it woke up"]);
      if (res.destroyed) return; // the caller left
      // counted in before it is woken, so that nobody freezes it between wake-up and dispatch
      const exchange = new Exchange(req, res, entry, replica, call, deadline);
      try {
        await replica.ensureAwake(thaw);
        exchange.dispatch(target);
      } catch (e) {
        exchange.fail(unavailable(e, entry));
      }
    } catch (e) {
      refuse(res, unavailable(e, entry), call);
    }
  }
}

function unavailable(e: unknown, entry: Entry): AppError {
  return e instanceof AppError ? e : new AppError("FUNCTION_UNAVAILABLE", [entry.key, messageOf(e)], { cause: e });
}

/** Waits for the wake-up until the deadline; who leaves earlier stops waiting. */
function within(wake: Promise<void>, deadline: number, entry: Entry, res: ServerResponse): Promise<void> {
  return new Promise((resolve, reject) => {
    const { timeoutMs, timeoutSource } = entry.policy;
    const end = () => {
      clearTimeout(timer);
      res.off("close", end);
      resolve();
    };
    const timer = setTimeout(() => {
      res.off("close", end);
      reject(new AppError("UPSTREAM_TIMEOUT", [entry.key, timeoutMs / 1000, timeoutSource]));
    }, deadline - performance.now());
    res.once("close", end);
    wake.then(end, (e) => {
      clearTimeout(timer);
      res.off("close", end);
      reject(e);
    });
  });
}
