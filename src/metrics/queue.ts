import type { Registry } from "prom-client";
import { family, type Sample } from "./family.ts";

/** The queue: read at every scrape. */
export interface QueueSources {
  queue: {
    depths(): Promise<
      readonly { lane: string; fn: string; queued: number; running: number; dead: number; oldest: number | null }[]
    >;
    counts(): ReadonlyMap<string, { submitted: number; processed: number; retries: number; givenUp: number }>;
    inFlight(): readonly { lane: string; fn: string; running: number }[];
  };
  /** Ms since the epoch. */
  now: () => number;
}

/** The queue-worker's names (contracts/api.md §2.10), and what it has none for. */
export function queueMetrics(registry: Registry, { queue, now }: QueueSources): void {
  const labelsOf = (fn: string) => ({ queue_name: "faas-request", function_name: fn });
  type Depth = Awaited<ReturnType<typeof queue.depths>>[number];
  const gauge = (name: string, help: string, value: (depth: Depth) => number, lane = "call") =>
    family(registry, { name, type: "gauge", help }, async () => {
      // a server that keeps the queue may be away, and the other metrics are not
      const depths = await queue.depths().catch(() => []);
      const those = depths.filter((depth) => depth.lane === lane);
      return those.map((depth): Sample => ({ labels: labelsOf(depth.fn), value: value(depth) }));
    });
  gauge("queue_worker_pending_messages", "Asynchronous calls that wait.", ({ queued }) => queued);
  gauge("napd_queue_dead_messages", "Asynchronous calls that were given up and are kept.", ({ dead }) => dead);
  gauge("napd_queue_oldest_seconds", "Age of the oldest call that waits or runs.", ({ oldest }) =>
    oldest === null ? 0 : Math.max(0, (now() - oldest) / 1000),
  );
  const pending = ({ queued, running }: Depth) => queued + running;
  gauge("napd_queue_pending_callbacks", "Callbacks that wait or are under way.", pending, "callback");
  gauge("napd_queue_dead_callbacks", "Callbacks that were given up and are kept.", ({ dead }) => dead, "callback");
  const counter = (name: string, help: string, key: "submitted" | "processed" | "retries" | "givenUp") =>
    family(registry, { name, type: "counter", help }, () =>
      [...queue.counts()].map(([fn, counts]) => ({ labels: labelsOf(fn), value: counts[key] })),
    );
  counter("queue_worker_messages_submitted_total", "Asynchronous calls that were accepted.", "submitted");
  counter("queue_worker_messages_processed_total", "Asynchronous calls that are done or given up.", "processed");
  counter("napd_queue_retries_total", "Attempts that failed and were followed by another.", "retries");
  counter("napd_queue_given_up_total", "Asynchronous calls that were given up.", "givenUp");
  const inFlight = "queue_worker_function_invocation_inflight";
  family(registry, { name: inFlight, type: "gauge", help: "Asynchronous calls under way." }, () =>
    queue
      .inFlight()
      .filter(({ lane }) => lane === "call")
      .map(({ fn, running }) => ({ labels: labelsOf(fn), value: running })),
  );
}
