/**
 * Images that bring no watchdog, each with another C library or none: what our injected watchdog must not care about.
 * Their programs: `count` bytes of the input, `nap` for the seconds that are asked for, `drip` a line and
 * stay, `report` who one is.
 */
import { execFile } from "node:child_process";
import { realpath, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { type LayerEntry, librariesOf } from "../../scripts/oci-image.ts";

const run = promisify(execFile);

export interface ForeignImage {
  readonly name: string;
  readonly layer: readonly LayerEntry[];
  readonly env?: readonly string[];
}

const reportScript = `#!/bin/sh
echo "uid=$(id -u)"
touch /opt/napd/watchdog/x || echo watchdog is read-only
touch /x || echo root is read-only
exec cat /proc/self/status
`;

/** The images for this machine's architecture; `dir` is for what has to be compiled. */
export async function foreignImages(dir: string): Promise<ForeignImage[]> {
  return [await busyboxAlone(), await debian(), await musl(dir)];
}

/** Nothing but a static busybox: no users, no /tmp, no libraries. */
async function busyboxAlone(): Promise<ForeignImage> {
  const file = await realpath(await which("busybox"));
  const names = ["sh", "wc", "cat", "sleep", "id", "touch"];
  return {
    name: "busybox",
    layer: [
      { path: "/bin/busybox", file, mode: 0o755 },
      ...names.map((name): LayerEntry => ({ path: `/bin/${name}`, symlink: "busybox" })),
      ...scripts(),
    ],
  };
}

/** Programs of this machine with its glibc; libraries that are none, where an image's LD_LIBRARY_PATH leads. */
async function debian(): Promise<ForeignImage> {
  const programs = ["dash", "wc", "cat", "sleep", "id", "touch"];
  const entries: LayerEntry[] = [];
  for (const name of programs) {
    const file = await realpath(await which(name));
    entries.push({ path: `/bin/${name}`, file, mode: 0o755 }, ...(await librariesOf(file)));
  }
  const broken = ["libdl.so.2", "libpthread.so.0"].map(
    (n): LayerEntry => ({ path: `/broken/${n}`, content: "no ELF" }),
  );
  return {
    name: "debian",
    layer: [...unique(entries), { path: "/bin/sh", symlink: "dash" }, ...scripts(), ...broken],
    env: ["LD_LIBRARY_PATH=/broken"],
  };
}

/** One program, linked with musl: there is no shell and no glibc. */
async function musl(dir: string): Promise<ForeignImage> {
  await writeFile(`${dir}/program.c`, program);
  await run("musl-gcc", ["-Os", "-o", `${dir}/program`, `${dir}/program.c`]);
  const loader = /\[Requesting program interpreter: (\S+)\]/.exec(
    (await run("readelf", ["--program-headers", `${dir}/program`])).stdout,
  )?.[1];
  if (!loader) throw new Error("musl-gcc made a program without a loader");
  const names = ["count", "nap", "drip", "report"];
  return {
    name: "musl",
    layer: [
      { path: loader, file: await realpath(loader), mode: 0o755 },
      ...names.map((name): LayerEntry => ({ path: `/bin/${name}`, file: `${dir}/program`, mode: 0o755 })),
    ],
  };
}

function scripts(): LayerEntry[] {
  return Object.entries({
    count: "#!/bin/sh\nexec wc -c\n",
    nap: '#!/bin/sh\nexec sleep "$1"\n',
    drip: "#!/bin/sh\necho first\nexec sleep 60\n",
    report: reportScript,
  }).map(([name, content]) => ({ path: `/bin/${name}`, content, mode: 0o755 }));
}

const program = `
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void cannot_write(const char *file, const char *what) {
  if (open(file, O_CREAT | O_WRONLY, 0600) < 0) printf("%s is read-only\\n", what);
}
int main(int argc, char **argv) {
  static char buffer[65536];
  if (strstr(argv[0], "nap")) return sleep(argc > 1 ? atoi(argv[1]) : 1);
  long total = 0, n;
  if (strstr(argv[0], "count")) {
    while ((n = read(0, buffer, sizeof buffer)) > 0) total += n;
    printf("%ld\\n", total);
    return 0;
  }
  if (strstr(argv[0], "drip")) {
    puts("first");
    fflush(stdout);
    return sleep(60);
  }
  printf("uid=%d\\n", (int)getuid());
  cannot_write("/opt/napd/watchdog/x", "watchdog");
  cannot_write("/x", "root");
  int status = open("/proc/self/status", O_RDONLY);
  fflush(stdout);
  while ((n = read(status, buffer, sizeof buffer)) > 0) if (write(1, buffer, n) != n) return 1;
  return 0;
}
`;

function unique(entries: readonly LayerEntry[]): LayerEntry[] {
  return [...new Map(entries.map((entry) => [entry.path, entry])).values()];
}

async function which(name: string): Promise<string> {
  return (await run("sh", ["-c", 'command -v "$1"', "sh", name])).stdout.trim();
}
