import { get } from "node:http";
import { connect } from "node:net";
import { systemCode } from "../base/errors.ts";
import type { Address } from "./backend.ts";
import type { Probe } from "./probes.ts";

/**
 * Probes once: null when all is well, otherwise what was wrong, for people. Never rejects. Each time over a connection
 * of its own: one that was kept can be closed by the other side at any moment, which says nothing about its health.
 */
export function ask(
  address: Address,
  { path, timeoutMs }: Pick<Probe, "path" | "timeoutMs">,
  signal: AbortSignal,
): Promise<string | null> {
  return path === null ? knock(address, timeoutMs, signal) : fetchStatus(address, path, timeoutMs, signal);
}

function knock({ host, port }: Address, timeoutMs: number, signal: AbortSignal): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: timeoutMs, signal });
    const end = (wrong: string | null) => {
      socket.destroy();
      resolve(wrong);
    };
    socket.once("connect", () => end(null));
    socket.once("timeout", () => end(`port ${port} did not accept a connection within ${timeoutMs / 1000} s`));
    socket.once("error", () => end(`nothing accepts connections on port ${port}`));
  });
}

function fetchStatus(
  { host, port }: Address,
  path: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<string | null> {
  return new Promise((resolve) => {
    const headers = { "user-agent": "napd-probe" };
    const request = get({ host, port, path, agent: false, headers, signal, maxHeaderSize: 1024 * 1024 });
    // over the whole exchange: a trickle of bytes must not keep it open
    const timer = setTimeout(() => request.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
    const end = (wrong: string | null) => {
      clearTimeout(timer);
      resolve(wrong);
      request.destroy();
    };
    request.once("response", ({ statusCode = 0 }) =>
      end(statusCode >= 200 && statusCode < 400 ? null : `GET ${path} answered ${statusCode}`),
    );
    request.on("error", (e) =>
      end(
        systemCode(e) === "ECONNREFUSED" ? `nothing accepts connections on port ${port}` : `GET ${path}: ${e.message}`,
      ),
    );
  });
}
