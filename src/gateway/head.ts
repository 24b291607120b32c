import { type IncomingMessage, METHODS } from "node:http";
import { AppError } from "../base/errors.ts";

/**
 * What node's parser lets through and we do not. It is strict itself (line ends, folded headers, chunk sizes, two
 * lengths, a length beside chunks, control characters: see test/unit/gateway/smuggling.test.ts); these are the rest.
 */

/** Methods of HTTP: the parser also takes those of RTSP. */
const methods = new Set(METHODS);
/** RFC 3986 §3.2.2 as far as anybody uses it: a name or IPv4 address, or an IPv6 address in brackets; and a port. */
const validHost = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{0,5})?$/;
const otherCoding = /^(?:x-)?(?:gzip|compress)$|^deflate$/;

/** Why a request is refused because of its head; null when all is well. An absolute target becomes one of origin form. */
export function headFault(req: IncomingMessage): AppError | null {
  if (req.httpVersionMajor !== 1 || req.httpVersionMinor > 1) return new AppError("HTTP_VERSION", []);
  if (!methods.has(req.method!)) return malformed("its method is not one of HTTP");
  const raw = req.rawHeaders;
  let host: string | undefined;
  let coding: string | undefined;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    // the length first: it is all that is looked at of nearly every field
    switch (name.length) {
      case 4:
        if (name.toLowerCase() !== "host") break;
        if (host !== undefined) return malformed("it has more than one Host (RFC 9112 §3.2)");
        host = raw[i + 1]!;
        break;
      case 6:
        if (name.toLowerCase() === "expect" && raw[i + 1]!.toLowerCase() !== "100-continue")
          return new AppError("EXPECTATION_UNKNOWN", [raw[i + 1]!]);
        break;
      case 14:
        switch (name.toLowerCase()) {
          case "content-length":
            if (!Number.isSafeInteger(+raw[i + 1]!)) return malformed("its Content-Length is beyond all measure");
            break;
          case "content_length":
            return malformed("Content_Length looks like Content-Length to some programs");
        }
        break;
      case 17:
        switch (name.toLowerCase()) {
          case "transfer-encoding":
            if (coding !== undefined) return malformed("it has more than one Transfer-Encoding");
            coding = raw[i + 1]!;
            break;
          case "transfer_encoding":
            return malformed("Transfer_Encoding looks like Transfer-Encoding to some programs");
        }
        break;
    }
  }
  if (coding !== undefined) {
    const fault = codingFault(coding, req.httpVersionMinor);
    if (fault) return fault;
  }
  if (host === undefined) {
    if (req.httpVersionMinor === 1) return malformed("it has no Host (RFC 9112 §3.2)");
  } else if (!validHost.test(host)) return malformed("its Host is not a name or address, with or without a port");
  return targetFault(req, host);
}

/** RFC 9112 §6.1: chunked, once and last; and nothing else is offered. HTTP/1.0 has no transfer codings. */
function codingFault(coding: string, minor: number): AppError | null {
  if (minor === 0) return malformed("HTTP/1.0 has no Transfer-Encoding (RFC 9112 §6.1)");
  const lower = coding.toLowerCase();
  if (lower === "chunked") return null;
  const other = lower.split(/[ \t]*,[ \t]*/).find((word) => otherCoding.test(word));
  return other === undefined
    ? malformed("its Transfer-Encoding is not chunked")
    : new AppError("TRANSFER_CODING", [other]);
}

/**
 * A path is what is served. `http://HOST/path` is one as well if it names the same host as the Host header: RFC 9112
 * §3.2.2 wants it understood, and two different hosts in one request are an attempt at something.
 */
function targetFault(req: IncomingMessage, host: string | undefined): AppError | null {
  const target = req.url!;
  if (target.includes("#")) return malformed("its target has a fragment, which stays at the caller");
  if (target.charCodeAt(0) === 47) return null;
  const [, authority, rest] = /^https?:\/\/([^/?]*)(.*)$/i.exec(target) ?? [];
  if (authority === undefined || authority.toLowerCase() !== host?.toLowerCase())
    return malformed("its target is neither a path nor a URL of the host that it names");
  req.url = rest!.startsWith("/") ? rest! : `/${rest}`;
  return null;
}

export function malformed(why: string): AppError {
  return new AppError("MALFORMED_REQUEST", [why]);
}
