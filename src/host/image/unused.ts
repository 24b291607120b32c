import type { ListedImage } from "../containerd/images.ts";
import type { Timestamp } from "../containerd/types.ts";
import { isDigest } from "./reference.ts";

/** Label of the records that keep content by its digest. */
export const pinLabel = "napd.pin";
/** Label of records that came by an archive: there may be no registry to fetch them from again. */
export const importedLabel = "napd.imported";

/** Label of records that were composed here: no registry knows them, but who sent their layer can send it again. */
export const composedLabel = "napd.composed";

/** An image that something needs. */
export interface UsedImage {
  readonly namespace: string;
  /** The name of its pin. */
  readonly image: string;
  /** Name of the function; null for a deploy that is under way. */
  readonly by: string | null;
}

/** One content of a namespace with all of its names: it goes when the last of them does. */
export interface ImageGroup {
  readonly namespace: string;
  readonly digest: string;
  readonly names: readonly string[];
  /** Ms since the epoch: the last deploy of it, or when the last function that ran it let go of it. */
  readonly usedAt: number;
  readonly imported: boolean;
}

/** What can be removed: a content by its names. */
export type Content = Pick<ImageGroup, "namespace" | "digest" | "names">;

/** The records of a namespace by what they point to. */
export function groupImages(namespace: string, records: readonly ListedImage[]): ImageGroup[] {
  return [...Map.groupBy(records, (r) => r.target.digest)].map(([digest, same]) => ({
    namespace,
    digest,
    names: same.map((r) => r.name),
    usedAt: Math.max(...same.map((r) => msOf(r.updated_at))),
    imported: same.some((r) => r.labels[importedLabel] !== undefined),
  }));
}

export interface UnusedQuery {
  /** Images used later than this are left alone, ms since the epoch. */
  readonly before: number;
  isNeeded(group: ImageGroup): boolean;
}

/**
 * What may go, in the order in which it should: what a registry can give again before what was imported, and among
 * those what nobody has used for the longest time.
 */
export function chooseUnused(groups: readonly ImageGroup[], { before, isNeeded }: UnusedQuery): ImageGroup[] {
  return groups
    .filter((group) => group.usedAt <= before && !isNeeded(group))
    .sort((a, b) => Number(a.imported) - Number(b.imported) || a.usedAt - b.usedAt);
}

/** Whether one of `used` runs this content, under whatever name. */
export function isUsed(group: Content, used: readonly UsedImage[]): boolean {
  return used.some((u) => u.namespace === group.namespace && digestIn(u.image) === group.digest);
}

/** The digest in a pin's name. */
export function digestIn(pin: string): string | undefined {
  const digest = pin.slice(pin.indexOf("@") + 1);
  return isDigest(digest) ? digest : undefined;
}

export function msOf(timestamp: Timestamp | null): number {
  return timestamp ? Number(timestamp.seconds) * 1000 + Math.floor(timestamp.nanos / 1e6) : 0;
}
