import { fstatSync } from "node:fs";

/**
 * Whether standard error leads to systemd's journal: JOURNAL_STREAM holds its device and inode. The variable alone says
 * nothing, since whoever redirects the output of a service passes it on.
 */
export function writesToJournal({ JOURNAL_STREAM: journal }: NodeJS.ProcessEnv, fd = 2): boolean {
  if (journal === undefined) return false;
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return journal === `${dev}:${ino}`;
  } catch {
    return false; // it is closed
  }
}
