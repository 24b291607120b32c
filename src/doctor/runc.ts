import type { RuntimeFact } from "./facts.ts";

/** Holes through which a function could leave its container. */
interface Hole {
  readonly cves: readonly string[];
  /** The first patched version of each line, in order; later lines have it from their start. */
  readonly fixedIn: readonly string[];
}

/** From the advisories of opencontainers/runc. */
const holes: readonly Hole[] = [
  // GHSA-xr7r-f8xq-vfvv, January 2024: working directory in a leaked descriptor
  { cves: ["CVE-2024-21626"], fixedIn: ["1.1.12"] },
  // GHSA-9493-h29p-rfm2, GHSA-qw9x-cqr3-wc7r, GHSA-cgrx-mc8f-2prm, November 2025: races around masked paths and /proc
  { cves: ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"], fixedIn: ["1.2.8", "1.3.3", "1.4.0-rc.3"] },
];

/** Those that this runc leaves open, as far as its version and its package's changelog tell. */
export function openHoles({ version, package: from }: Pick<RuntimeFact, "version" | "package">): Hole[] {
  return holes.flatMap(({ cves, fixedIn }) => {
    if (isFixed(version, fixedIn)) return [];
    const left = cves.filter((cve) => !from?.cves.includes(cve));
    return left.length > 0 ? [{ cves: left, fixedIn }] : [];
  });
}

function isFixed(version: string, fixedIn: readonly string[]): boolean {
  const [found, ...levels] = [version, ...fixedIn].map(parse);
  const ofItsLine = levels.find(([major, minor]) => major === found![0] && minor === found![1]);
  return compare(found!, ofItsLine ?? levels.at(-1)!) >= 0;
}

/** Major, minor, patch, and the number of the release candidate, which comes before the release itself. */
function parse(version: string): number[] {
  const [, major, minor, patch = "0", candidate] =
    /^v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~+]rc\.?(\d+))?/.exec(version) ?? [];
  return [major, minor, patch, candidate ?? Number.POSITIVE_INFINITY].map((part) => Number(part ?? 0));
}

function compare(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((part, i) => part !== b[i]);
  return at < 0 ? 0 : a[at]! - b[at]!;
}
