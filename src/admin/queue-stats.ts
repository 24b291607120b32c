import { splitAddress } from "../base/names.ts";
import type { AddResource } from "./api.ts";
import { queryOf } from "./request.ts";

/** How many messages of a function there are, as the queue's store counts them. */
interface QueueDepth {
  readonly lane: "call" | "callback";
  /** Key of the function. */
  readonly fn: string;
  readonly queued: number;
  readonly running: number;
  readonly dead: number;
  /** When the oldest that waits or runs came, ms since the epoch. */
  readonly oldest: number | null;
}

/** What the API needs of the queue for it. */
export interface QueueDepths {
  depths(): Promise<readonly QueueDepth[]>;
}

/** The queue in figures, by function and kind: exact, however long it is. */
export function queueStatsRoutes(add: AddResource, { queue }: { queue: QueueDepths }): void {
  add("/system/queue-stats", {
    GET: async (request) => {
      const wanted = queryOf(request, "namespace") || undefined;
      return (await queue.depths())
        .map(({ fn, lane, oldest, ...counts }) => {
          const { name, namespace } = splitAddress(fn, "");
          return {
            ...{ function: name, namespace, kind: lane, ...counts },
            oldestAt: oldest === null ? null : new Date(oldest).toISOString(),
          };
        })
        .filter(({ namespace }) => wanted === undefined || namespace === wanted);
    },
  });
}
