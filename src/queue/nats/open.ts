import { mkdir, rm } from "node:fs/promises";
import { type Clock, within } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { Bodies } from "../bodies.ts";
import { NatsBodies } from "./bodies.ts";
import { Link } from "./connection.ts";
import { Layout } from "./layout.ts";
import { NatsStore } from "./store.ts";

export interface NatsQueueOptions {
  /** `nats://[user:password@]host[:port]`, or `tls://…`; several with commas between them. */
  readonly url: string;
  /** File with a user's JWT and key (`.creds`); empty for none. */
  readonly credentials: string;
  /** File with the certificates of the authorities to trust; empty for the system's. */
  readonly ca: string;
  /** Begins the names of streams and subjects: one queue for all who have the same. */
  readonly prefix: string;
  readonly ackWaitMs: number;
  /** Where large bodies wait until they are on the server. */
  readonly spillDir: string;
  /** Bytes that stay free on its file system. */
  readonly reserve: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Ms that the start waits for the server. */
const firstMs = 1000;

/** The queue on a NATS server. It comes up although the server is away, and tries to reach it from then on. */
export async function openNatsQueue(options: NatsQueueOptions): Promise<{ store: NatsStore; bodies: NatsBodies }> {
  const { spillDir, reserve, prefix, ackWaitMs, clock, log } = options;
  await rm(spillDir, { recursive: true, force: true }); // of requests that nobody was answered for
  await mkdir(spillDir, { recursive: true, mode: 0o700 });
  const layout = new Layout(prefix);
  const link = new Link({ ...options, layout });
  const bodies = new NatsBodies(new Bodies(spillDir, reserve), link, layout);
  const store = new NatsStore({ link, layout, bodies, ackWaitMs, clock, log });
  await within(link.begun, firstMs, clock);
  return { bodies, store };
}
