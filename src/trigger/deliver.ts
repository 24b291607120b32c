import { Readable } from "node:stream";
import { keyOf } from "../base/names.ts";
import type { Deliver } from "../invoke/internal.ts";
import type { CronOptions } from "./cron.ts";

/**
 * Makes calls from inside napd, so that they are woken for, limited, timed and counted as everybody else's; `later` is
 * the way into the queue. How long one may take is the function's limit. The answer's body is read and dropped.
 */
export function deliverBy(now: Deliver, later: Deliver): CronOptions["deliver"] {
  return async ({ id, headers, isAsync }, signal) => {
    const answer = await (isAsync ? later : now)({
      ...{ address: keyOf(id), target: "/", headers: Object.entries(headers).flat() },
      ...{ body: Readable.from([]), bodyBytes: 0, signal },
    });
    for await (const _ of answer);
    return { status: answer.statusCode! };
  };
}
