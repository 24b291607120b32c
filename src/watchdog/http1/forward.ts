import { CHUNKED, fieldValue, type RequestHead, type ResponseHead } from "../../http1/head.ts";
import { originForm } from "../environment.ts";
import { isHopByHop } from "./hop.ts";

/**
 * The head of `request` as the upstream at `url` gets it, whose paths begin with `basePath`. `bodyLength`: what is
 * sent, which is not what came when the body was collected.
 */
export function requestText(request: RequestHead, url: string, basePath: string, bodyLength: number): string {
  const path = originForm(request.target);
  let text = `${request.method} ${path === "*" ? path : basePath + path} HTTP/1.1\r\n`;
  if (request.host === "") text += `Host: ${url.replace(/^https?:\/\//i, "").replace(/\/.*/, "")}\r\n`;
  text += passedOn(request.fields, request.hopFields, request.bodyLength === CHUNKED ? "content-length" : "");
  if (bodyLength === CHUNKED) text += "Transfer-Encoding: chunked\r\n";
  else if (request.bodyLength === CHUNKED) text += `Content-Length: ${bodyLength}\r\n`;
  if (request.upgrade !== "") text += `Connection: Upgrade\r\nUpgrade: ${request.upgrade}\r\n`;
  return `${text}\r\n`;
}

/** Whether an answer says what its body is, or that this cannot be told from its bytes. */
export function namesType({ fields }: ResponseHead): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    const { length } = fields[i]!;
    if (length !== 12 && length !== 16) continue;
    const name = fields[i]!.toLowerCase();
    if (name === "content-type" || name === "content-encoding") return true;
  }
  return false;
}

/** The fields of an answer as the client gets them, as lines; framing is not among them, but a length is. */
export function responseFields(head: ResponseHead, seconds: string): string {
  // 204 must not have a length, and a length beside chunks is void (RFC 9110 §8.6, RFC 9112 §6.2).
  const without = head.status === 204 || head.bodyLength === CHUNKED ? "content-length" : "";
  let text = passedOn(head.fields, head.hopFields, without, "x-duration-seconds");
  if (head.status === 101) text += `Connection: Upgrade\r\nUpgrade: ${fieldValue(head.fields, "upgrade")}\r\n`;
  return `${text}X-Duration-Seconds: ${seconds}\r\n`;
}

/** The end-to-end fields as lines: order, case and repetitions as they came, without hop-by-hop ones and `without`. */
export function passedOn(fields: readonly string[], hop: readonly string[], ...without: string[]): string {
  let text = "";
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!;
    if (isHopByHop(name, hop) || without.some((w) => w.length === name.length && w === name.toLowerCase())) continue;
    text += `${name}: ${fields[i + 1]}\r\n`;
  }
  return text;
}
