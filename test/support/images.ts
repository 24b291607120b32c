import { baseLayer, type ImageSpec, watchdogLayer, writeOciArchive } from "../../scripts/oci-image.ts";

/** A function without a watchdog: busybox serves `/www` on port 8080 and runs `/www/cgi-bin/*`. Small, up in a moment. */
export async function webImage(
  file: string,
  ref: string,
  text: string,
  extra: Partial<ImageSpec> = {},
): Promise<string> {
  const info =
    '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nid\nenv\ncat /proc/self/status /etc/resolv.conf /etc/hosts\nls -ln /var/openfaas/secrets 2>&1\n';
  const echo = '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nexec head -c "$CONTENT_LENGTH"\n';
  const say =
    '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nexec cat "/var/openfaas/secrets/$QUERY_STRING"\n';
  const slow = '#!/bin/sh\nsleep "$QUERY_STRING"\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\necho slept\n';
  const die = "#!/bin/sh\nkill -9 1\n";
  const log = '#!/bin/sh\nhead -c "$CONTENT_LENGTH" >&2\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\necho logged\n';
  const flood =
    '#!/bin/sh\ndd if=/dev/zero bs=1M count="$QUERY_STRING" 2>/dev/null | cat >&2\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\necho flooded\n';
  const cgi = Object.entries({ info, echo, say, slow, die, log, flood }).map(([name, content]) => ({
    path: `/www/cgi-bin/${name}`,
    content,
    mode: 0o755,
  }));
  const layers = [await baseLayer(), [{ path: "/www/index.html", content: text }, ...cgi]];
  await writeOciArchive(file, { ref, layers, cmd: ["busybox", "httpd", "-f", "-p", "8080", "-h", "/www"], ...extra });
  return file;
}

/** A function as OpenFaaS builds them: our watchdog in the image, `fprocess` says what it runs. */
export async function watchdogImage(
  file: string,
  ref: string,
  fprocess: string,
  extra: Partial<ImageSpec> = {},
): Promise<string> {
  const layers = [await baseLayer(), await watchdogLayer()];
  await writeOciArchive(file, {
    ref,
    layers,
    cmd: ["fwatchdog"],
    env: [`fprocess=${fprocess}`],
    user: "app",
    ...extra,
  });
  return file;
}
