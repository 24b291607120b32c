import { connect } from "node:net";
import { type Dispatcher, request } from "undici";
import type { Clock } from "../base/clock.ts";
import { AppError } from "../base/errors.ts";
import { type Address, type Backend, type ReplicaExit, replicaId } from "./backend.ts";
import type { Replica } from "./replica.ts";

/** Bytes of a replica's last output that go into an error. */
const tailBytes = 500;

/** Waits until a started replica is ready. Fails with REPLICA_NOT_READY, or with the reason of its own abort signal. */
export async function becomeReady(
  replica: Replica,
  address: Address,
  path: string | null,
  timeoutMs: number,
  backend: Backend,
  clock: Clock,
): Promise<void> {
  if (await waitReady(address, path, replica.pool!, timeoutMs, clock, replica.abort.signal)) return;
  const tail = await backend.tail(replica.identity, tailBytes).catch(() => "");
  const what = path === null ? "nothing accepts connections on port 8080" : `GET ${path} did not answer 2xx or 3xx`;
  throw new AppError("REPLICA_NOT_READY", [
    replica.id,
    timeoutMs,
    tail === "" ? what : `${what}; its last output: ${tail}`,
  ]);
}

/** Why a replica ended: out of memory (`memory` is its limit as asked for), or its exit code and last output. */
export async function exitReason(exit: ReplicaExit, memory: string | undefined, backend: Backend): Promise<AppError> {
  const id = replicaId(exit);
  if (exit.outOfMemory) return new AppError("REPLICA_OOM", [id, memory ?? "no limit"]);
  const tail = await backend.tail(exit, tailBytes).catch(() => "");
  return new AppError("REPLICA_EXITED", [id, exit.exitCode, tail]);
}

/**
 * Waits until a replica is ready: its port accepts a connection or, with `path`, a GET on it answers 2xx or 3xx.
 * Polls at once, then after 1 ms, growing by half up to 100 ms, because a program that starts fast should not wait
 * for our clock. Resolves false after `timeoutMs`; rejects with the signal's reason when it aborts.
 */
export async function waitReady(
  address: Address,
  path: string | null,
  pool: Dispatcher,
  timeoutMs: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<boolean> {
  const end = clock.monotonic() + timeoutMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(100, pauseMs * 1.5)) {
    signal.throwIfAborted();
    if (await (path === null ? isOpen(address) : answers(address, path, pool))) return true;
    if (clock.monotonic() + pauseMs > end) return false;
    await clock.sleep(pauseMs, signal);
  }
}

function isOpen(address: Address): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address.host, port: address.port, timeout: 1000 });
    const end = (open: boolean) => {
      socket.destroy();
      resolve(open);
    };
    socket.once("connect", () => end(true));
    socket.once("timeout", () => end(false));
    socket.once("error", () => end(false));
  });
}

async function answers(address: Address, path: string, dispatcher: Dispatcher): Promise<boolean> {
  try {
    const { statusCode, body } = await request(`http://${address.host}:${address.port}${path}`, {
      dispatcher,
      headersTimeout: 5000,
      bodyTimeout: 5000,
    });
    await body.dump();
    return statusCode >= 200 && statusCode < 400;
  } catch {
    return false; // refused, reset or silent: not ready yet, whatever the reason
  }
}
