const suffixes: Record<string, number> = {
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/**
 * The number in a Kubernetes quantity: plain or decimal digits, an exponent, or a suffix (`m` thousandths,
 * `k M G T P E` decimal, `Ki Mi Gi Ti Pi Ei` binary). Undefined when it is none.
 */
function parseQuantity(text: string): number | undefined {
  const match = /^([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,3})|(m|k|M|G|T|P|E|[KMGTPE]i))?$/.exec(text);
  if (!match) return undefined;
  const value =
    match[3] === "m"
      ? Number(match[1]) / 1000
      : Number(match[1]) * 10 ** Number(match[2] ?? 0) * suffixes[match[3] ?? ""]!;
  return Number.isFinite(value) ? value : undefined;
}

/** Bytes of a memory quantity such as `128Mi`, rounded up; undefined when it is none or not above zero. */
export function parseMemory(text: string): number | undefined {
  const value = parseQuantity(text);
  return value === undefined || value <= 0 || value > Number.MAX_SAFE_INTEGER ? undefined : Math.ceil(value);
}

/** Cores of a CPU quantity such as `100m` or `0.5`; undefined when it is none or not above zero. */
export function parseCpu(text: string): number | undefined {
  const value = parseQuantity(text);
  return value === undefined || value <= 0 ? undefined : value;
}

/** Bytes as a quantity that `parseMemory` reads: with the largest binary suffix that leaves a whole number. */
export function formatQuantity(bytes: number): string {
  const suffix = ["Ti", "Gi", "Mi", "Ki"].find((s) => bytes > 0 && bytes % suffixes[s]! === 0);
  return suffix ? `${bytes / suffixes[suffix]!}${suffix}` : String(bytes);
}

/** Bytes for people: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${+(bytes / 2 ** (10 * power)).toFixed(1)} ${units[power]}`;
}
