import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import { Routes } from "../../src/functions/routes.ts";
import type { Table } from "../../src/functions/table.ts";
import { type Gateway, type GatewayLimits, type GatewayOptions, openGateway } from "../../src/gateway/server.ts";

/** Wide enough to play no part in a test that is about something else. */
export const limits: GatewayLimits = {
  headersTimeoutMs: 60_000,
  bodyTimeoutMs: 60_000,
  sendTimeoutMs: 60_000,
  keepAliveMs: 60_000,
  maxConnections: 10_000,
  maxHeaders: 1000,
  maxHeaderBytes: 1024 * 1024,
};

/** A gateway on loopback; its bridge is elsewhere. */
export function openTestGateway(
  options: Partial<GatewayOptions> = {},
  { host = "127.0.0.1", port = 0 } = {},
): Promise<Gateway> {
  const table: Table = new Map();
  const listeners = [{ at: { host, port }, setting: "gateway.listen" }];
  const elsewhere = { listeners, bridgeAddress: "10.0.0.1", defaultNamespace: "fn" };
  return openGateway({ ...elsewhere, table, routes: new Routes(), limits, ...options });
}

/** What handlers saw of one request: `f ADDRESS TARGET` for a function, `api TARGET` for the API. */
export interface Seen {
  what: string;
  method: string;
  body: string;
  /** The whole body has come. */
  whole: boolean;
  req: IncomingMessage;
  res: ServerResponse;
}

/** Handlers that write down what they see and answer with it when the request is whole. */
export function recorder(answer: (seen: Seen) => void = ({ res, what }) => res.end(what)) {
  const seen: Seen[] = [];
  const record = (what: string, req: IncomingMessage, res: ServerResponse) => {
    const entry: Seen = { what, method: req.method!, body: "", whole: false, req, res };
    seen.push(entry);
    req.setEncoding("latin1");
    req.on("error", () => {});
    req.on("data", (text) => {
      entry.body += text;
    });
    req.on("end", () => {
      entry.whole = true;
      answer(entry);
    });
  };
  return {
    seen,
    invoke: (req: IncomingMessage, res: ServerResponse, address: string, target: string) =>
      record(`f ${address} ${target}`, req, res),
    later: (req: IncomingMessage, res: ServerResponse, address: string, target: string) =>
      record(`later ${address} ${target}`, req, res),
    upgrade: (_: IncomingMessage, socket: Socket) => void socket.destroy(),
    admin: (req: IncomingMessage, res: ServerResponse) => record(`api ${req.url}`, req, res),
  };
}

/** A caller that sends bytes and keeps what comes back. */
export interface Caller extends Disposable {
  readonly socket: Socket;
  /** All that has come so far. */
  text(): string;
  /** The statuses of the answers so far. */
  statuses(): number[];
  /** Resolves when the gateway has said that it will send no more. */
  readonly ended: Promise<void>;
}

export async function call(port: number, bytes = ""): Promise<Caller> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  let text = "";
  socket.setEncoding("latin1");
  socket.on("data", (part) => {
    text += part;
  });
  socket.on("error", () => {}); // a refused caller may meet a reset while it still sends
  const ended = new Promise<void>((resolve) => {
    socket.once("end", resolve);
    socket.once("close", () => resolve());
  });
  await Promise.race([once(socket, "connect"), ended]);
  socket.write(bytes, "latin1");
  return {
    socket,
    ended,
    text: () => text,
    statuses: () => [...text.matchAll(/HTTP\/1\.1 (\d{3}) [A-Z]/g)].map(([, status]) => Number(status)),
    [Symbol.dispose]: () => void socket.destroy(),
  };
}
