/**
 * Heads of HTTP/1.x messages, parsed strictly (RFC 9112 §2–§6). The watchdog has its own small HTTP/1.1 because of
 * what node:http does on Bun 1.4.5: a bare proxy costs two to three times the CPU per request, the start takes 5 ms
 * longer, extension methods are refused, and the second of two header names that differ in case is rewritten.
 */

/** Length of a body that is sent in chunks. */
export const CHUNKED = -1;
/** Length of a body that ends when the connection does. */
export const UNTIL_CLOSE = -2;

/** Bytes of a head, as in Go's net/http: 1 MiB and 4 KiB of slack (contracts/watchdog.md §2). */
export const MAX_HEAD = 1024 * 1024 + 4096;

/** Names and values as they came: `[name, value, name, value, …]`. Bytes above 127 are one latin1 character each. */
export type Fields = string[];

export interface RequestHead {
  method: string;
  target: string;
  /** 0 or 1: the minor version. */
  minor: number;
  fields: Fields;
  /** Value of Host; empty when there is none. */
  host: string;
  /** Bytes of the body, or CHUNKED. */
  bodyLength: number;
  /** The connection ends with this exchange. */
  close: boolean;
  expectContinue: boolean;
  /** The protocol that the client wants to change to, when it says so properly (RFC 9110 §7.8). */
  upgrade: string;
  /** Lower-case names that `Connection` declares to be for this hop only, beyond the usual ones. */
  hopFields: string[];
}

export interface ResponseHead {
  status: number;
  reason: string;
  minor: number;
  fields: Fields;
  /** Bytes of the body, CHUNKED or UNTIL_CLOSE; 0 when the message has none by nature. */
  bodyLength: number;
  close: boolean;
  hopFields: string[];
}

/** A message that cannot be read. `status` and `text` are for the client that sent it. */
export class HeadError extends Error {
  readonly status: number;
  constructor(status: number, text: string) {
    super(text);
    this.status = status;
  }
}

/** The first value of a field; empty when there is none. `name` is in lower case. */
export function fieldValue(fields: Fields, name: string): string {
  for (let i = 0; i < fields.length; i += 2)
    if (fields[i]!.length === name.length && fields[i]!.toLowerCase() === name) return fields[i + 1]!;
  return "";
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/; // RFC 9110 §5.6.2
const TARGET = /^[\x21-\x7e\x80-\xff]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const BAD_VALUE = /[\0-\x08\x0a-\x1f\x7f]/; // RFC 9110 §5.5

/** A client may send an empty line or two before a request (RFC 9112 §2.2). */
export function skipEmptyLines(bytes: Buffer): Buffer {
  let at = 0;
  while (bytes[at] === 13 && bytes[at + 1] === 10) at += 2;
  return at > 0 ? bytes.subarray(at) : bytes;
}

/** Whether there is a line that ends without a carriage return: the end of such a head would never be found. */
export function hasBareLineFeed(bytes: Buffer): boolean {
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) if (bytes[at - 1] !== 13) return true;
  return false;
}

/** Parses a request's head, without its final empty line. Throws HeadError. */
export function parseRequest(text: string): RequestHead {
  const lines = text.split("\r\n");
  const [method, target, protocol, ...rest] = lines[0]!.split(" ");
  if (!method || !target || !protocol || rest.length > 0 || !TOKEN.test(method) || !TARGET.test(target))
    throw new HeadError(400, "400 Bad Request");
  const minor = minorVersion(protocol);
  const fields = parseFields(lines);
  const f = scan(fields);
  if (f.hosts > 1 || (f.hosts === 0 && minor === 1))
    throw new HeadError(400, `400 Bad Request: ${f.hosts ? "too many Host headers" : "missing required Host header"}`);
  const expect = minor === 1 ? f.expect.toLowerCase() : "";
  if (expect !== "" && expect !== "100-continue") throw new HeadError(417, "417 Expectation Failed");
  const close = minor === 0 || f.close; // HTTP/1.0 keep-alive is not offered: nothing here needs it
  return {
    method,
    target,
    minor,
    fields,
    host: f.host,
    bodyLength: requestLength(f, minor),
    // A length beside chunks smells of request smuggling: answer, but trust nothing after it (RFC 9112 §6.1).
    close: close || (f.transferEncoding !== "" && f.length !== ""),
    expectContinue: expect !== "",
    upgrade: minor === 1 && f.hopFields.includes("upgrade") ? f.upgrade : "",
    hopFields: f.hopFields,
  };
}

/** Parses the head of a response to a request with `method`, without its final empty line. Throws HeadError. */
export function parseResponse(text: string, method: string): ResponseHead {
  const lines = text.split("\r\n");
  const match = /^(HTTP\/\d\.\d) (\d{3})(?: (.*))?$/.exec(lines[0]!);
  if (!match) throw new HeadError(502, `malformed HTTP response ${JSON.stringify(lines[0]!.slice(0, 60))}`);
  const minor = minorVersion(match[1]!);
  const status = Number(match[2]);
  if (status < 100) throw new HeadError(502, `malformed HTTP status code ${status}`);
  const fields = parseFields(lines);
  const f = scan(fields);
  const bodyLength = responseLength(f, status, method);
  const keepsAlive = minor === 1 ? !f.close : f.keepAlive;
  return {
    status,
    reason: match[3] ?? "",
    minor,
    fields,
    bodyLength,
    close: !keepsAlive || bodyLength === UNTIL_CLOSE,
    hopFields: f.hopFields,
  };
}

function minorVersion(protocol: string): number {
  if (protocol === "HTTP/1.1") return 1;
  if (protocol === "HTTP/1.0") return 0;
  throw /^HTTP\/\d/.test(protocol)
    ? new HeadError(505, "505 HTTP Version Not Supported: unsupported protocol version")
    : new HeadError(400, "400 Bad Request");
}

function parseFields(lines: string[]): Fields {
  const fields: Fields = [];
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i]!;
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    // Covers folded lines and a blank before the colon, both refused (RFC 9112 §5.1, §5.2).
    if (colon <= 0 || !TOKEN.test(name)) throw new HeadError(400, "400 Bad Request: malformed header");
    const value = trimBlanks(line, colon + 1);
    if (BAD_VALUE.test(value)) throw new HeadError(400, "400 Bad Request: invalid header value");
    fields.push(name, value);
  }
  return fields;
}

/** Without the optional blanks around it, which are spaces and tabs only (RFC 9110 §5.6.3). */
function trimBlanks(line: string, from: number): string {
  let start = from;
  let end = line.length;
  while (start < end && isBlank(line.charCodeAt(start))) start++;
  while (end > start && isBlank(line.charCodeAt(end - 1))) end--;
  return line.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 32 || code === 9;
}

/** The fields that decide how a message is framed and what becomes of its connection. */
interface Scan {
  host: string;
  hosts: number;
  length: string;
  transferEncoding: string;
  expect: string;
  upgrade: string;
  close: boolean;
  keepAlive: boolean;
  hopFields: string[];
}

const noFields: string[] = [];

function scan(fields: Fields): Scan {
  const f: Scan = {
    host: "",
    hosts: 0,
    length: "",
    transferEncoding: "",
    expect: "",
    upgrade: "",
    close: false,
    keepAlive: false,
    hopFields: noFields,
  };
  for (let i = 0; i < fields.length; i += 2) scanField(f, fields[i]!, fields[i + 1]!);
  return f;
}

function scanField(f: Scan, name: string, value: string): void {
  switch (name.length) {
    case 4:
      if (name.toLowerCase() === "host") {
        f.host = value;
        f.hosts++;
      }
      return;
    case 6:
      if (name.toLowerCase() === "expect") f.expect = value;
      return;
    case 7:
      if (name.toLowerCase() === "upgrade") f.upgrade = f.upgrade ? `${f.upgrade}, ${value}` : value;
      return;
    case 10:
      if (name.toLowerCase() === "connection") scanConnection(f, value);
      return;
    case 14:
      if (name.toLowerCase() === "content-length") f.length = oneLength(f.length, value);
      return;
    case 17:
      if (name.toLowerCase() === "transfer-encoding")
        f.transferEncoding = f.transferEncoding ? `${f.transferEncoding}, ${value}` : value || ",";
      return;
  }
}

function scanConnection(f: Scan, value: string): void {
  for (const part of value.toLowerCase().split(",")) {
    const option = part.trim();
    if (option === "close") f.close = true;
    else if (option === "keep-alive") f.keepAlive = true;
    else if (option !== "") f.hopFields = [...f.hopFields, option];
  }
}

/** Several lengths are one when they agree (RFC 9112 §6.3, 5). */
function oneLength(before: string, value: string): string {
  for (const part of value.split(",")) {
    const length = part.trim();
    if (!/^\d{1,15}$/.test(length) || (before !== "" && Number(before) !== Number(length)))
      throw new HeadError(400, "400 Bad Request");
    before = length;
  }
  return before;
}

function requestLength(f: Scan, minor: number): number {
  if (f.transferEncoding !== "") {
    if (minor === 0) throw new HeadError(400, "400 Bad Request: Transfer-Encoding in HTTP/1.0");
    if (f.transferEncoding.toLowerCase() !== "chunked") throw new HeadError(501, "Unsupported transfer encoding");
    return CHUNKED;
  }
  return f.length === "" ? 0 : Number(f.length);
}

function responseLength(f: Scan, status: number, method: string): number {
  if (method === "HEAD" || status < 200 || status === 204 || status === 304) return 0; // RFC 9112 §6.3, 1
  if (f.transferEncoding !== "") return /(^|,)\s*chunked$/i.test(f.transferEncoding) ? CHUNKED : UNTIL_CLOSE;
  return f.length === "" ? UNTIL_CLOSE : Number(f.length);
}
