import { type ChildProcess, execFile } from "node:child_process";
import { chmod, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** What a command line came to. */
export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A folder that is a machine to an installation, with a systemd that knows napd alone. */
export interface TestMachine {
  readonly root: string;
  /** Runs a program as somebody does who has stubs before everything else in the PATH. */
  run(command: string, args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Result>;
  /** Starts one, to be killed. */
  start(command: string, args: readonly string[]): ChildProcess;
  /** Puts a program into the PATH, before all others. */
  stub(name: string, script: string): Promise<void>;
  unstub(name: string): Promise<void>;
  /** Writes the settings that it began with. */
  configure(more?: Readonly<Record<string, string>>): Promise<void>;
  /** What systemctl was asked to change since the last call of this, a line each. */
  asked(): Promise<string[]>;
  /** Of the service's process; 0 without one. */
  pid(): Promise<number>;
}

/**
 * systemctl for one service: `start` runs what the unit starts below $ROOT, with the settings there. A process that
 * ends stays ended. The socket is only noted, napd opens its port itself. What it is asked to change is in
 * $ROOT/systemd/asked.
 */
const systemctl = `#!/bin/sh
state=$ROOT/systemd
mkdir -p "$state"
pid() { cat "$state/pid" 2>/dev/null || echo 0; }
lives() { readlink "/proc/$(pid)/exe" >/dev/null 2>&1; } # not of a process that nobody has reaped
stop() {
  lives && kill "$(pid)" && while lives; do sleep 0.05; done
  rm -f "$state/pid"
}
start() {
  lives && return
  program=$(sed -n 's/^ExecStart=//p' "$ROOT/etc/systemd/system/napd.service")
  [ -n "$program" ] || { echo "Unit napd.service not found." >&2; exit 5; }
  setsid sh -c 'echo $$ >"$1"; shift; exec "$@"' - "$state/pid" \\
    "$ROOT$program" --config "$ROOT/etc/napd/napd.ini" </dev/null >>"$ROOT/napd.log" 2>&1 &
  while ! [ -s "$state/pid" ]; do sleep 0.01; done
}
listen() { sed -n 's/^ListenStream=//p' "$ROOT/etc/systemd/system/napd.socket"; }
case $1 in show | is-active | is-enabled) ;; *) echo "$@" >>"$state/asked" ;; esac
case "$*" in
"show "*napd.socket) [ ! -e "$state/listens" ] || printf 'ActiveState=active\\nListen=%s (Stream)\\n' "$(listen)" ;;
"show "*)
  if lives; then echo ActiveState=active; else echo ActiveState=failed; fi
  lives && echo "MainPID=$(pid)" || echo MainPID=0
  echo NRestarts=0
  ;;
"is-active napd.socket") [ -e "$state/listens" ] ;;
"is-enabled napd.socket") [ -e "$state/socket" ] ;;
"enable napd.socket") touch "$state/socket" ;;
"restart napd.socket") touch "$state/listens" ;;
"stop napd.socket") rm -f "$state/listens" ;;
"disable --now napd.socket") rm -f "$state/listens" "$state/socket" ;;
"start napd.service") start ;;
"restart napd.service") stop; start ;;
"stop napd.service" | "disable --now napd.service") stop ;;
esac
`;

const journalctl = `#!/bin/sh
tail -n 15 "$ROOT/napd.log"
`;

/** Below the world's directory, with its settings; Debian 12 unless told otherwise. */
export async function testMachine(root: string, settings: Readonly<Record<string, string>>): Promise<TestMachine> {
  const bin = join(root, "stubs");
  for (const dir of ["run/systemd/system", "etc/ssl/certs", "stubs"]) await mkdir(join(root, dir), { recursive: true });
  await writeFile(join(root, "etc/os-release"), 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n');
  await writeFile(join(root, "etc/ssl/certs/ca-certificates.crt"), "");
  const configure = async (more: Readonly<Record<string, string>> = {}) => {
    await mkdir(join(root, "etc/napd"), { recursive: true });
    await writeFile(join(root, "etc/napd/napd.ini"), iniOf({ ...settings, ...more }));
  };
  await configure();
  const environment = { ...process.env, ROOT: root, PATH: `${bin}:${process.env.PATH}` };
  const stub = async (name: string, script: string) => {
    await writeFile(join(bin, name), script);
    await chmod(join(bin, name), 0o755);
  };
  await stub("systemctl", systemctl);
  await stub("journalctl", journalctl);
  const start = (command: string, args: readonly string[]) => execFile(command, args, { env: environment });
  return {
    root,
    run: (command, args, env = {}) =>
      new Promise((resolve) =>
        execFile(command, args, { env: { ...environment, ...env } }, (e, stdout, stderr) =>
          resolve({ code: e === null ? 0 : Number(e.code ?? -1), stdout, stderr }),
        ),
      ),
    start,
    stub,
    unstub: (name) => rm(join(bin, name)),
    configure,
    async asked() {
      const file = join(root, "systemd/asked");
      const text = await readFile(file, "utf8").catch(() => "");
      await rm(file, { force: true });
      return text.split("\n").filter((line) => line !== "");
    },
    pid: async () => Number(await readFile(join(root, "systemd/pid"), "utf8").catch(() => 0)),
  };
}

/** `section.key` by value, as a file. */
function iniOf(settings: Readonly<Record<string, string>>): string {
  const lines = Object.entries(settings).map(([name, value]) => {
    const [section, key] = name.split(".");
    return `[${section}]\n${key} = ${value}\n`;
  });
  return lines.join("");
}
