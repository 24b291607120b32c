/** What is known of a log when it is decided which ones go. */
export interface Kept {
  readonly live: boolean;
  readonly identity: { readonly generation: number };
  /** Bytes on disk. */
  readonly heldBytes: number;
  /** Ms since the epoch. */
  readonly writtenAt: number;
}

/** Versions of a function whose logs are kept, the one that serves included. */
export const keptGenerations = 3;

/** Logs of a function that belong to versions replaced long ago. */
export function outdated<F extends Kept>(files: readonly F[]): F[] {
  const generations = [...new Set(files.map((f) => f.identity.generation))].sort((a, b) => b - a);
  const oldest = generations[keptGenerations - 1] ?? 0;
  return files.filter((f) => !f.live && f.identity.generation < oldest);
}

/**
 * What must go so that all logs together take at most `maxBytes`: those of ended replicas, whoever was silent longest
 * first, and if that is not enough, what each living one has above an equal `share`.
 */
export function excess<F extends Kept>(files: readonly F[], maxBytes: number): { remove: F[]; share: number } {
  let total = files.reduce((sum, f) => sum + f.heldBytes, 0);
  const remove: F[] = [];
  for (const file of files.filter((f) => !f.live).sort((a, b) => a.writtenAt - b.writtenAt)) {
    if (total <= maxBytes) break;
    remove.push(file);
    total -= file.heldBytes;
  }
  const living = files.filter((f) => f.live).length;
  return { remove, share: total <= maxBytes ? Number.POSITIVE_INFINITY : Math.floor(maxBytes / living) };
}
