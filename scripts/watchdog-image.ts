/**
 * Writes dist/fwatchdog-image.tar: the watchdog as an OCI image for linux/amd64 and linux/arm64, from which Dockerfiles
 * take it once it is pushed somewhere:
 *
 *     COPY --from=HOST/fwatchdog:VERSION /fwatchdog /usr/bin/fwatchdog             for images with glibc
 *     COPY --from=HOST/fwatchdog:VERSION /opt/napd/watchdog /opt/napd/watchdog     for any image; CMD ["/opt/napd/watchdog/fwatchdog"]
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type ImageSpec, type LayerEntry, type WrittenImage, writeOciArchive } from "./oci-image.ts";

const root = join(import.meta.dirname, "..");
const dist = join(root, "dist");
const architectures = { amd64: "x64", arm64: "arm64" } as const;

/** Builds what is not up to date, then writes `file`. The layers are compressed unless said otherwise. */
export async function writeWatchdogImage(
  file: string,
  compression: NonNullable<ImageSpec["compression"]> = "gzip",
): Promise<WrittenImage> {
  const build = [join(root, "scripts/build-watchdog.ts"), "--all"];
  execFileSync(process.execPath, build, { stdio: ["ignore", "ignore", "inherit"] });
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const images = Object.entries(architectures).map(
    ([architecture, platform]): ImageSpec => ({
      architecture,
      ref: `docker.io/library/fwatchdog:${version}`,
      layers: [
        [{ path: "/fwatchdog", file: join(dist, `fwatchdog-linux-${platform}`), mode: 0o755 }],
        folder(join(dist, `watchdog-linux-${platform}`)),
      ],
      entrypoint: ["/fwatchdog"],
      labels: { "org.opencontainers.image.title": "fwatchdog", "org.opencontainers.image.version": version },
      compression,
    }),
  );
  const [first, ...others] = images as [ImageSpec, ...ImageSpec[]];
  return writeOciArchive(file, first, ...others);
}

function folder(path: string): LayerEntry[] {
  return [
    ...["/opt", "/opt/napd", "/opt/napd/watchdog"].map((dir): LayerEntry => ({ path: dir, dir: true })),
    ...readdirSync(path)
      .sort()
      .map((name): LayerEntry => ({ path: `/opt/napd/watchdog/${name}`, file: join(path, name), mode: 0o755 })),
  ];
}

if (import.meta.main) {
  const file = join(dist, "fwatchdog-image.tar");
  await writeWatchdogImage(file);
  console.log(`dist/fwatchdog-image.tar: ${(statSync(file).size / 1e6).toFixed(1)} MB`);
}
