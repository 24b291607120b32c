import { randomBytes } from "node:crypto";
import { status } from "@grpc/grpc-js";
import type { Clock } from "../../base/clock.ts";
import { AppError, isAppError, messageOf, systemCode } from "../../base/errors.ts";
import { KeyedQueue } from "../../base/keyed-queue.ts";
import type { Logger } from "../../base/log.ts";
import { ContainerdError } from "../containerd/channel.ts";
import type { Containerd } from "../containerd/client.ts";

/** What everything in this room works with. */
export interface Tools {
  readonly containerd: Containerd;
  readonly clock: Clock;
  readonly log: Logger;
  /** Marks what this process makes, so that a sweep knows it from what a dead one left. */
  readonly mark: string;
  /** Leases of this process that are in use. */
  readonly leases: Set<string>;
  /** One writer per blob, and one unpacking per chain of layers: `namespace digest`. */
  readonly blobs: KeyedQueue<string>;
  readonly chains: KeyedQueue<string>;
}

export function openTools(containerd: Containerd, clock: Clock, log: Logger): Tools {
  const mark = randomBytes(4).toString("hex");
  return { containerd, clock, log, mark, leases: new Set(), blobs: new KeyedQueue(), chains: new KeyedQueue() };
}

/** What a piece of work is for and what keeps its products. */
export interface Scope {
  readonly namespace: string;
  readonly lease: string;
  /** The image as error texts name it. */
  readonly ref: string;
}

/** How the leases of this room begin; a sweep takes those that no living work holds. */
export const leasePurposes = ["pull", "import", "compose", "image"] as const;

/** How the snapshots that a layer is unpacked into begin; the mark of the process follows. */
export const extractPrefix = "napd-extract-";

/**
 * A day, as containerd's own clients take: a slow line may need hours for a large image. After a crash the sweep is
 * what ends a lease.
 */
const leaseMs = 24 * 60 * 60_000;

/**
 * Runs `work` under a lease. When it fails, garbage collection is waited for, so that the space is free when the
 * caller hears of it; errors of containerd are told as what they mean for the image.
 */
export async function underLease<T>(
  tools: Tools,
  namespace: string,
  purpose: (typeof leasePurposes)[number],
  ref: string,
  work: (scope: Scope) => Promise<T>,
): Promise<T> {
  const { containerd, leases, log } = tools;
  let lease = "";
  let failed = true;
  let full = false;
  try {
    lease = (await containerd.leases.open(namespace, purpose, leaseMs)).id;
    leases.add(lease);
    const result = await work({ namespace, lease, ref });
    failed = false;
    return result;
  } catch (e) {
    full = isDiskFull(e);
    throw full ? new AppError("IMAGE_DISK_FULL", [ref], { cause: e }) : e;
  } finally {
    // A lease that cannot be given back ends by itself or by the next sweep: no reason to fail what was done.
    if (lease)
      await containerd.leases
        .delete(namespace, lease, failed)
        .catch((e) => log.warn({ namespace, lease, err: messageOf(e) }, "lease not given back"));
    leases.delete(lease);
    if (full) await reclaim(tools, namespace);
  }
}

/**
 * A second garbage collection for a full disk. In the first, the snapshotter cannot drop a half-unpacked layer: it has
 * to write that down in a database on the same disk, fails, and does not look again before another snapshot was
 * removed. The content that the first one freed is the room for this.
 */
async function reclaim({ containerd, log, mark }: Tools, namespace: string): Promise<void> {
  try {
    const { id } = await containerd.leases.open(namespace, leasePurposes[0], 60_000);
    const key = `${extractPrefix}${mark}-reclaim-${id}`;
    await containerd.snapshots.prepare(key, "", {}, { namespace, lease: id });
    await containerd.snapshots.remove(key, { namespace });
    await containerd.leases.delete(namespace, id, true);
  } catch (e) {
    log.warn({ namespace, err: messageOf(e) }, "space of a failed pull is not free yet");
  }
}

/**
 * Whether a file system was full. containerd tells this as UNKNOWN with a text and nothing else
 * (contracts/containerd.md §1.4, §11): the one place that reads it. A quota is the same to whoever waits for space.
 */
export function isDiskFull(e: unknown): boolean {
  if (e instanceof ContainerdError && e.grpc === status.UNKNOWN)
    return /no space left on device|disk quota exceeded/i.test(e.message);
  return systemCode(e) === "ENOSPC" || systemCode(e) === "EDQUOT";
}

/** What containerd says when a layer is not what it should be: UNKNOWN and a text (contracts/containerd.md §1.4). */
export function isBadLayer(e: unknown): boolean {
  if (isAppError(e, "IMAGE_DIGEST_MISMATCH")) return true;
  return e instanceof ContainerdError && e.grpc === status.UNKNOWN && !isDiskFull(e);
}

/** As `Promise.all`, at most `limit` at once; after the first failure nothing new begins, and all that began has ended. */
export async function eachOf<T>(items: readonly T[], limit: number, work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const failures: unknown[] = [];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined && failures.length === 0; item = queue.shift()) {
      try {
        await work(item);
      } catch (e) {
        failures.push(e);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  if (failures.length > 0) throw failures[0];
}
