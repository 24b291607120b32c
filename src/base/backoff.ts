/** Waiting times that double: `minMs`, 2×, 4× … up to `maxMs`. `attempt` counts from 0. */
export function backoffMs(attempt: number, minMs: number, maxMs: number): number {
  return Math.min(maxMs, minMs * 2 ** Math.min(attempt, 30));
}
