const unitMs: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, μs: 1e-3, ms: 1, s: 1e3, m: 6e4, h: 3.6e6 };

/**
 * Milliseconds of a duration as OpenFaaS writes them: a whole number is seconds, anything else is a Go duration
 * (`1m30s`, `1.5s`, `250ms`, units ns us µs ms s m h; a sign is allowed). Undefined when it is neither.
 * Source: contracts/api.md §1.1, contracts/watchdog.md §1.1.
 */
export function parseDuration(text: string): number | undefined {
  if (/^\+?\d+$/.test(text)) return Number(text) * 1000;
  const match = /^([+-]?)((?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.exec(text);
  if (!match) return text === "0" ? 0 : undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g))
    total += Number(number) * unitMs[unit!]!;
  return match[1] === "-" ? -total : total;
}

/** A duration for people: `1m30s`, `2.5s`, `300ms`. */
export function formatDuration(ms: number): string {
  if (ms < 0) return `-${formatDuration(-ms)}`;
  if (ms < 1000) return `${+ms.toFixed(3)}ms`;
  const h = Math.floor(ms / 3.6e6);
  const m = Math.floor((ms % 3.6e6) / 6e4);
  const s = +((ms % 6e4) / 1000).toFixed(3);
  return `${h ? `${h}h` : ""}${m || h ? `${m}m` : ""}${s}s`;
}
