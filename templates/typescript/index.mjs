// Answers what the watchdog passes on by calling the handler in ./function. Nothing but Node is needed.
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { pathToFileURL } from "node:url";

const folder = join(import.meta.dirname, "function");
const limit = bytes(process.env.MAX_RAW_SIZE ?? "10mb");
const handler = await load();

const server = createServer(async (request, response) => {
  try {
    const body = await read(request);
    if (body === undefined) {
      response.writeHead(413, { Connection: "close" }).end(`the body is larger than ${limit} bytes (MAX_RAW_SIZE)\n`);
      return;
    }
    const context = new Context();
    await answer(response, context, await run(eventOf(request, body), context));
  } catch (e) {
    console.error(e);
    if (response.headersSent) response.destroy();
    else response.writeHead(e instanceof BadRequest ? 400 : 500, { "Content-Type": "text/plain" }).end(`${e}\n`);
  }
});
// the watchdog is the only client and has time limits of its own; while the function sleeps, no timer may run out
server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.headersTimeout = 0;
server.listen(Number(process.env.http_port ?? 3000), "127.0.0.1");
for (const signal of ["SIGTERM", "SIGINT"])
  process.once(signal, () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });

class BadRequest extends Error {}

class Context {
  #status = 200;
  #headers = {};
  /** What succeed or fail was called with. */
  result;

  /** Sets the status and returns the context, or returns the status. */
  status(status) {
    if (status === undefined) return this.#status;
    this.#status = status;
    return this;
  }
  /** Sets the headers and returns the context, or returns the headers. */
  headers(headers) {
    if (headers === undefined) return this.#headers;
    this.#headers = headers;
    return this;
  }
  succeed(value) {
    this.result = { value };
    return value;
  }
  fail(error) {
    if (this.#status === 200) this.#status = 500;
    this.result = { value: error instanceof Error ? String(error) : error };
  }
}

/** The handler's own choice by package.json, else a file called handler. */
async function load() {
  const manifest = join(folder, "package.json");
  const { main } = existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")) : {};
  const names = [main, "handler.mts", "handler.mjs", "handler.cts", "handler.cjs", "handler.ts", "handler.js"];
  const name = names.find((n) => n && existsSync(join(folder, n)));
  if (!name) throw new Error("there is no handler.js in the function's folder");
  const module = await import(pathToFileURL(join(folder, name)).href);
  const found = module.default?.default ?? module.default ?? module.handler;
  if (typeof found !== "function") throw new Error(`${name} must export a function, (event, context) => …`);
  return found;
}

async function run(event, context) {
  // (event, context, callback): an older handler, which is done when it calls back
  if (handler.length > 2)
    return new Promise((resolve, reject) => {
      handler(event, context, (error, value) => (error ? reject(error) : resolve(value)));
    });
  const value = await handler(event, context);
  return context.result ? context.result.value : value;
}

/** All of the body, or nothing when it is too large. */
async function read(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size > limit) return undefined;
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

function eventOf(request, body) {
  const url = new URL(`http://function${request.url.startsWith("/") ? request.url : "/"}`);
  const query = {};
  for (const key of new Set(url.searchParams.keys())) {
    const values = url.searchParams.getAll(key);
    query[key] = values.length > 1 ? values : values[0];
  }
  return {
    method: request.method,
    path: url.pathname,
    query,
    headers: request.headers,
    body: parse(body, request.headers["content-type"] ?? ""),
  };
}

/** JSON as what it means, everything else as text; with RAW_BODY=true always the bytes. */
function parse(body, type) {
  if (process.env.RAW_BODY === "true") return body;
  if (body.length === 0 || !/^application\/(\S+\+)?json\b/i.test(type)) return body.toString();
  try {
    return JSON.parse(body);
  } catch (e) {
    throw new BadRequest(`the body is no JSON: ${e.message}`);
  }
}

async function answer(response, context, value) {
  const headers = Object.fromEntries(Object.entries(context.headers()).map(([name, v]) => [name.toLowerCase(), v]));
  response.statusCode = context.status();
  for (const [name, v] of Object.entries(headers)) if (v !== undefined) response.setHeader(name, v);
  const typed = (type) => {
    if (!("content-type" in headers)) response.setHeader("content-type", type);
  };
  if (value === undefined || value === null) response.end();
  else if (value instanceof Uint8Array) {
    typed("application/octet-stream");
    response.end(value);
  } else if (typeof value === "object" && (Symbol.asyncIterator in value || value instanceof ReadableStream)) {
    typed("application/octet-stream");
    await pipeline(Readable.from(value), response);
  } else if (typeof value === "object") {
    typed("application/json; charset=utf-8");
    response.end(JSON.stringify(value));
  } else {
    typed("text/plain; charset=utf-8");
    response.end(String(value));
  }
}

function bytes(text) {
  const [, count, unit = ""] = /^(\d+)\s*([km]?)b?$/i.exec(text) ?? [];
  if (count === undefined) throw new Error(`MAX_RAW_SIZE=${text} is no size; write 10mb`);
  return Number(count) * { "": 1, k: 1024, m: 1024 ** 2 }[unit.toLowerCase()];
}
