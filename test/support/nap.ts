import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import type { Context } from "../../src/cli/context.ts";
import { runCommandLine } from "../../src/cli/main.ts";

/** An answer of the server below. */
export interface Scripted {
  status: number;
  /** A function makes it of the query. */
  body?: unknown;
  headers?: Record<string, string>;
  /** Only for this path. */
  path?: string;
  method?: string;
  /** How often it is given before the next one has its turn; without it, for ever. */
  times?: number;
}

export interface Seen {
  method: string;
  path: string;
  query: string;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

export interface RecordingServer extends AsyncDisposable {
  readonly url: string;
  /** Takes what has come since the last call. */
  seen(): Seen[];
}

/** Answers as it is told, with its port for PORTX, and keeps what it is asked. */
export async function openRecordingServer(
  script: readonly Scripted[],
  tls?: { key: string; cert: string },
): Promise<RecordingServer> {
  let seen: Seen[] = [];
  const left = script.map((answer) => ({ ...answer, times: answer.times ?? Number.POSITIVE_INFINITY }));
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece);
    const [path = "", query = ""] = request.url!.split("?");
    const body = Buffer.concat(pieces).toString();
    seen.push({ method: request.method!, path, query, headers: request.headers, body });
    const next = left.find(
      (a) => a.times > 0 && (a.path ?? path) === path && (a.method ?? request.method) === request.method,
    );
    if (next) next.times--;
    const told = typeof next?.body === "function" ? next.body(query) : next?.body;
    const text = typeof told === "string" ? told : JSON.stringify(told ?? "");
    const { port } = server.address() as AddressInfo;
    response.writeHead(next?.status ?? 404, next?.headers).end(text.replaceAll("PORTX", String(port)));
  };
  const server = tls ? createTlsServer(tls, answer) : createServer(answer);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `${tls ? "https" : "http"}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: () => {
      const taken = seen;
      seen = [];
      return taken;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

export interface Ran {
  exit: number;
  stdout: string;
  stderr: string;
}

/** A directory to run nap in, whose parent is its home. */
export interface Place {
  readonly home: string;
  readonly cwd: string;
}

export interface RunOptions {
  env?: Record<string, string>;
  stdin?: string | Buffer;
  /** Columns of the terminal that it writes to. */
  terminal?: number;
  signal?: AbortSignal;
  /** Told what is written, as it is written. */
  onOutput?: (text: string) => void;
}

/** Runs nap in this process. */
export async function nap(place: Place, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const { context, end } = napContext(place, options);
  const exit = await runCommandLine(args, context);
  return { exit, ...(await end()) };
}

/** The world that commands see; `end` gives what was written. */
export function napContext(
  place: Place,
  { env = {}, stdin = "", terminal, signal = new AbortController().signal, onOutput }: RunOptions = {},
): { context: Context; end(): Promise<Omit<Ran, "exit">> } {
  const collect = () => {
    const stream: PassThrough & { isTTY?: boolean; columns?: number } = new PassThrough();
    if (terminal !== undefined) Object.assign(stream, { isTTY: true, columns: terminal });
    let text = "";
    stream.on("data", (piece) => {
      text += piece;
      onOutput?.(String(piece));
    });
    return { stream, text: () => text };
  };
  const [out, err] = [collect(), collect()];
  const context: Context = {
    env: { HOME: place.home, ...env },
    cwd: place.cwd,
    stdin: Readable.from(stdin.length > 0 ? [Buffer.from(stdin)] : []),
    stdout: out.stream,
    stderr: err.stream,
    signal,
    version: async () => "0.0.0",
  };
  return {
    context,
    async end() {
      out.stream.end();
      err.stream.end();
      await Promise.all([once(out.stream, "close"), once(err.stream, "close")]);
      return { stdout: out.text(), stderr: err.text() };
    },
  };
}

/** Makes `cwd` below `dir`, and the files, of which those that begin with `~/` are in the home. */
export async function openPlace(dir: string, files: Readonly<Record<string, string | Buffer>> = {}): Promise<Place> {
  const place = { home: dir, cwd: join(dir, "cwd") };
  await mkdir(place.cwd, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    const path = name.startsWith("~/") ? join(place.home, name.slice(2)) : join(place.cwd, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  }
  return place;
}
