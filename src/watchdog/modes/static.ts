import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { fieldValue, type RequestHead } from "../../http1/head.ts";
import { splitTarget } from "../environment.ts";
import type { Exchange, Handler } from "../http1/exchange.ts";
import { sniffContentType } from "../http1/sniff.ts";
import { log } from "../log.ts";
import { BaseHandler, type Mode } from "./mode.ts";

/** Bytes that are read from a file and sent at a time. */
const PIECE = 64 * 1024;

/** Files of a folder (contracts/watchdog.md §3.5). Any method is treated like GET. */
export class StaticMode implements Mode {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  start(): Promise<string> {
    log(`Serving files at: ${this.#root}`);
    return new Promise(() => {});
  }

  ready(): boolean {
    return true;
  }

  serve(exchange: Exchange): Handler {
    return new StaticCall(exchange, this.#root);
  }

  signal(): void {}

  async stop(): Promise<void> {}
}

interface Range {
  start: number;
  end: number;
}

class StaticCall extends BaseHandler {
  readonly #exchange: Exchange;
  readonly #root: string;
  #gone = false;
  #room: PromiseWithResolvers<void> | null = null;

  constructor(exchange: Exchange, root: string) {
    super();
    this.#exchange = exchange;
    this.#root = root;
    this.work = this.#run();
  }

  override drain(): void {
    this.#room?.resolve();
    this.#room = null;
  }

  override clientGone(): void {
    this.#gone = true;
    this.drain();
  }

  async #run(): Promise<void> {
    const path = filePath(splitTarget(this.#exchange.request.target).path);
    if (path === null) return this.#text(400, "invalid URL path\n");
    try {
      await this.#find(path);
    } catch (e) {
      const code = (e as NodeJS.ErrnoException).code ?? "";
      if (["ENOENT", "ENOTDIR", "ENAMETOOLONG"].includes(code)) this.#text(404, "404 page not found\n");
      else if (["EACCES", "EPERM"].includes(code)) this.#text(403, "403 Forbidden\n");
      else if (this.#exchange.headSent) this.#exchange.destroy();
      else this.#text(500, "500 Internal Server Error\n");
    }
  }

  async #find(path: string): Promise<void> {
    const query = splitTarget(this.#exchange.request.target).query;
    const rest = query ? `?${query}` : "";
    const base = path.slice(path.lastIndexOf("/", path.length - 2) + 1);
    if (path.endsWith("/index.html")) return this.#redirect(`./${rest}`);
    const file = join(this.#root, path);
    const isFolder = (await stat(file)).isDirectory();
    if (isFolder && !path.endsWith("/")) return this.#redirect(`${encodeURI(base)}/${rest}`);
    if (!isFolder && path.endsWith("/")) return this.#redirect(`../${encodeURI(base.slice(0, -1))}${rest}`);
    if (!isFolder) return this.#sendFile(file);
    const index = join(file, "index.html");
    const hasIndex = await stat(index).then(
      (s) => s.isFile(),
      () => false,
    );
    return hasIndex ? this.#sendFile(index) : this.#list(file);
  }

  #redirect(to: string): void {
    this.#respond(301, `Location: ${to}\r\n`, "");
  }

  async #list(folder: string): Promise<void> {
    const entries = await readdir(folder, { withFileTypes: true });
    const names = entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name)).sort();
    const lines = names.map((name) => `<a href="${linkTo(name)}">${escapeHtml(name)}</a>\n`);
    this.#respond(200, "Content-Type: text/html; charset=utf-8\r\n", `<pre>\n${lines.join("")}</pre>\n`);
  }

  async #sendFile(file: string): Promise<void> {
    await using handle = await open(file, "r");
    const { size, mtimeMs } = await handle.stat();
    const { request } = this.#exchange;
    const modified = hasTime(mtimeMs)
      ? `Last-Modified: ${new Date(Math.floor(mtimeMs / 1000) * 1000).toUTCString()}\r\n`
      : "";
    if (isUnchanged(request, mtimeMs)) return this.#head(304, modified);
    const range = rangeOf(request, size, mtimeMs);
    if (range === "bad")
      return this.#text(416, "invalid range: failed to overlap\n", `Content-Range: bytes */${size}\r\n${modified}`);
    const type = `Content-Type: ${await typeOf(file, handle)}\r\n`;
    const fields = `Accept-Ranges: bytes\r\n${modified}${type}`;
    if (!range) await this.#sendPart(handle, 200, fields, { start: 0, end: size });
    else {
      const part = `Content-Range: bytes ${range.start}-${range.end - 1}/${size}\r\n`;
      await this.#sendPart(handle, 206, fields + part, range);
    }
  }

  async #sendPart(handle: FileHandle, status: number, fields: string, { start, end }: Range): Promise<void> {
    const exchange = this.#exchange;
    exchange.head(status, fields, end - start);
    for (let at = start; at < end && !this.#gone && exchange.request.method !== "HEAD"; ) {
      const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(Math.min(PIECE, end - at)), { position: at });
      if (bytesRead === 0) return exchange.destroy(); // it was cut while it was being sent
      at += bytesRead;
      exchange.write(buffer.subarray(0, bytesRead));
      exchange.flush();
      if (!exchange.writable && !this.#gone) {
        this.#room = Promise.withResolvers();
        await this.#room.promise;
      }
    }
    if (!this.#gone) exchange.end();
  }

  #text(status: number, text: string, fields = ""): void {
    const plain = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";
    this.#respond(status, plain + fields, text);
  }

  #head(status: number, fields: string): void {
    if (this.#gone) return;
    this.#exchange.head(status, fields, null);
    this.#exchange.end();
  }

  #respond(status: number, fields: string, text: string): void {
    if (!this.#gone) this.#exchange.respond(status, fields, text);
  }
}

/** The path with its escapes decoded and its dots resolved, so that it stays below the root; null for none. */
export function filePath(path: string): string | null {
  let decoded: string;
  try {
    decoded = decodeURIComponent(Buffer.from(path, "latin1").toString("utf8"));
  } catch {
    return null;
  }
  if (decoded.includes("\0")) return null;
  const parts: string[] = [];
  for (const part of decoded.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  const isFolder = /(^|\/)\.{0,2}$/.test(decoded);
  return `/${parts.join("/")}${isFolder && parts.length > 0 ? "/" : ""}`;
}

/**
 * Images that are to have the same digest for the same content have files of 1970. To caches these would never change;
 * so they have no time at all, as with Go's file server.
 */
const hasTime = (mtimeMs: number): boolean => Math.floor(mtimeMs / 1000) > 0;

function isUnchanged(request: RequestHead, mtimeMs: number): boolean {
  const since = Date.parse(fieldValue(request.fields, "if-modified-since"));
  return hasTime(mtimeMs) && ["GET", "HEAD"].includes(request.method) && Math.floor(mtimeMs / 1000) * 1000 <= since;
}

/** The single range that is asked for; null for all. Several ranges are answered with all, which RFC 9110 §14.2 allows. */
function rangeOf(request: RequestHead, size: number, mtimeMs: number): Range | null | "bad" {
  const text = fieldValue(request.fields, "range");
  const match = /^bytes=(\d*)-(\d*)$/.exec(text.replaceAll(" ", ""));
  if (!match || (match[1] === "" && match[2] === "")) return text === "" || text.includes(",") ? null : "bad";
  const condition = fieldValue(request.fields, "if-range");
  if (condition !== "" && !hasTime(mtimeMs)) return null;
  if (condition !== "" && Date.parse(condition) !== Math.floor(mtimeMs / 1000) * 1000) return null;
  const start = match[1] === "" ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = match[1] === "" || match[2] === "" ? size : Math.min(size, Number(match[2]) + 1);
  return start < end ? { start, end } : "bad";
}

const types: Record<string, string> = {
  avif: "image/avif",
  css: "text/css; charset=utf-8",
  gif: "image/gif",
  htm: "text/html; charset=utf-8",
  html: "text/html; charset=utf-8",
  ico: "image/x-icon",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  js: "text/javascript; charset=utf-8",
  json: "application/json",
  map: "application/json",
  md: "text/markdown; charset=utf-8",
  mjs: "text/javascript; charset=utf-8",
  mp4: "video/mp4",
  pdf: "application/pdf",
  png: "image/png",
  svg: "image/svg+xml",
  ttf: "font/ttf",
  txt: "text/plain; charset=utf-8",
  wasm: "application/wasm",
  webp: "image/webp",
  woff: "font/woff",
  woff2: "font/woff2",
  xml: "text/xml; charset=utf-8",
};

async function typeOf(file: string, handle: FileHandle): Promise<string> {
  const byName = types[file.slice(file.lastIndexOf(".") + 1).toLowerCase()];
  if (byName) return byName;
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(512), { position: 0 });
  return sniffContentType(buffer.subarray(0, bytesRead));
}

function linkTo(name: string): string {
  const link = encodeURIComponent(name).replaceAll("%2F", "/");
  return escapeHtml(name.includes(":") ? `./${link}` : link);
}

function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (c) => entities[c]!);
}
