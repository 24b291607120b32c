import { CHUNKED } from "../../http1/head.ts";
import { reasonPhrase } from "./status.ts";

/** The head of an answer; `fields` and `length` as in Exchange.head. `close` announces the end of the connection. */
export function answerHead(status: number, fields: string, length: number | null, close: boolean): string {
  let text = `HTTP/1.1 ${status} ${reasonPhrase(status)}\r\n${fields}`;
  if (!/^date:/im.test(fields)) text += dateLine();
  if (length === CHUNKED) text += "Transfer-Encoding: chunked\r\n";
  else if (length !== null && length >= 0) text += `Content-Length: ${length}\r\n`;
  if (close) text += "Connection: close\r\n";
  return `${text}\r\n`;
}

let second = 0;
let text = "";

/** The field Date with its line end (RFC 9110 §6.6.1). It is the same for a second. */
function dateLine(): string {
  const now = Math.floor(Date.now() / 1000);
  if (now !== second) {
    second = now;
    text = `Date: ${new Date(now * 1000).toUTCString()}\r\n`;
  }
  return text;
}
