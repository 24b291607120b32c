import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { Bodies, type MessageBodies } from "./bodies.ts";
import { bodiesDir, SqliteStore } from "./sqlite.ts";
import type { QueueStore } from "./store.ts";

export interface OpenOptions {
  /** Of a NATS server; empty for the database of this machine. */
  readonly url: string;
  readonly credentials: string;
  readonly ca: string;
  readonly name: string;
  readonly ackWaitMs: number;
  readonly dataDir: string;
  /** Bytes that stay free on its file system. */
  readonly reserve: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The store that the settings name, and the bodies of its messages. */
export async function openQueueStore(options: OpenOptions): Promise<{ store: QueueStore; bodies: MessageBodies }> {
  const { url, dataDir, reserve, name } = options;
  if (url === "") return { store: await SqliteStore.open(dataDir), bodies: new Bodies(bodiesDir(dataDir), reserve) };
  // NATS' packages take 19 MiB, which only those pay for who use them
  const { openNatsQueue } = await import("./nats/open.ts");
  return openNatsQueue({ ...options, prefix: name, spillDir: join(dataDir, "queue-spill") });
}
