/** A registry with bad days: stands before a real one, writes down what it is asked, and misbehaves on request. */
import { once } from "node:events";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

export interface RegistryProxy extends AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Everything since the last `asked.length = 0`. */
  readonly asked: Asked[];
  /** Set to change how it behaves; `{}` is a faithful proxy. */
  behaviour: Behaviour;
}

export interface Behaviour {
  /** Blobs are answered with 307 to the same path of this host. */
  redirectBlobsTo?: string;
  /** This often, a blob's connection breaks after `cutAfter` bytes. */
  cuts?: number;
  cutAfter?: number;
  /** The connection stops here without breaking, once `cutAfter` bytes of a blob are sent. */
  hang?: boolean;
  /** Ranges are not understood. */
  ignoreRange?: boolean;
  /** One bit of each of these is wrong. */
  corrupt?: "blobs" | "manifests";
  /** Refuses whoever sends a login, as storage behind a registry does. */
  refuseLogins?: boolean;
  /** Answers the next requests itself, one each. */
  answers?: { status: number; headers?: Record<string, string>; body?: string }[];
}

/** `upstream` is `HOST:PORT` of a registry without TLS; with `tls` the proxy speaks HTTPS. */
export async function openRegistryProxy(upstream: string, tls?: { key: Buffer; cert: Buffer }): Promise<RegistryProxy> {
  const asked: Asked[] = [];
  const handle = (req: IncomingMessage, res: ServerResponse) => {
    const { authorization, range } = req.headers;
    asked.push({ method: req.method!, path: req.url!, authorization, range });
    res.on("error", () => {});
    if (!answerItself(proxy.behaviour, req, res)) pass(upstream, proxy.behaviour, req, res);
  };
  const server = tls ? createTlsServer(tls, handle) : createServer(handle);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const proxy: RegistryProxy = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    behaviour: {},
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return proxy;
}

const isBlob = (req: IncomingMessage) => req.url!.includes("/blobs/sha256:");

function answerItself(behaviour: Behaviour, req: IncomingMessage, res: ServerResponse): boolean {
  const own = behaviour.answers?.shift();
  if (own) res.writeHead(own.status, own.headers).end(own.body);
  else if (behaviour.refuseLogins && req.headers.authorization)
    res.writeHead(400).end("only one auth mechanism allowed");
  else if (behaviour.redirectBlobsTo && isBlob(req))
    res.writeHead(307, { location: `http://${behaviour.redirectBlobsTo}${req.url}` }).end();
  else return false;
  return true;
}

function pass(upstream: string, behaviour: Behaviour, req: IncomingMessage, res: ServerResponse): void {
  const { host: _, range, ...headers } = req.headers;
  const [hostname, port] = upstream.split(":");
  const sent = { ...headers, ...(range && !behaviour.ignoreRange && { range }) };
  const onward = request({ hostname, port, method: req.method, path: req.url, headers: sent }, (answer) => {
    res.writeHead(answer.statusCode!, answer.headers);
    const wrong = behaviour.corrupt === (isBlob(req) ? "blobs" : "manifests");
    const cut = isBlob(req) && req.method === "GET" && (behaviour.hang || (behaviour.cuts ?? 0) > 0);
    let left = cut ? (behaviour.cutAfter ?? 0) : Number.POSITIVE_INFINITY;
    answer.on("data", (chunk: Buffer) => {
      if (left <= 0) return;
      if (wrong) chunk[chunk.length >> 1]! ^= 1;
      res.write(chunk.subarray(0, left));
      left -= chunk.length;
      if (left > 0) return;
      if (behaviour.hang) return;
      behaviour.cuts!--;
      setTimeout(() => res.destroy(), 20); // what was written shall arrive
    });
    answer.on("end", () => left > 0 && res.end());
    answer.on("error", () => res.destroy());
  });
  onward.on("error", () => res.destroy());
  res.on("close", () => onward.destroy());
  req.pipe(onward);
}
