import { request } from "node:http";
import { keyOf } from "../base/names.ts";
import type { CronCall, CronOutcome } from "./cron.ts";

/**
 * Makes calls by the gateway's own listener, so that they are woken for, limited, timed and counted as everybody
 * else's. How long one may take is the function's limit. The answer's body is read and dropped.
 */
export function deliverBy({ host, port }: { host: string; port: number }): (call: CronCall) => Promise<CronOutcome> {
  const to = { host: reachable(host), port, method: "POST", agent: false } as const;
  return ({ id, headers, isAsync }) =>
    new Promise((resolve, reject) => {
      const path = `/${isAsync ? "async-function" : "function"}/${keyOf(id)}`;
      const call = request({ ...to, path, headers: { ...headers, "Content-Length": "0" } }, (answer) => {
        answer.on("error", reject);
        answer.on("end", () => resolve({ status: answer.statusCode! }));
        answer.resume();
      });
      call.on("error", reject);
      call.end();
    });
}

/** Who listens on every address is found on the loopback one. */
function reachable(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  return host === "::" ? "::1" : host;
}
