import type { ServerResponse } from "node:http";
import type { AppError } from "../base/errors.ts";
import type { CallHeaders } from "./headers.ts";

/** Answers a call with an error of the platform, marked as such: contracts/api.md §1.4, X-OpenFaaS-Internal. */
export function refuse(
  res: ServerResponse,
  error: AppError,
  call: CallHeaders,
  more: Record<string, string> = {},
): void {
  if (res.destroyed) return;
  const body = `${error.message}\n`;
  res.writeHead(error.status, {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": Buffer.byteLength(body),
    "X-Content-Type-Options": "nosniff",
    "X-OpenFaaS-Internal": "napd",
    "X-Call-Id": call.callId,
    "X-Start-Time": call.startTime,
    ...more,
  });
  res.end(body);
}
