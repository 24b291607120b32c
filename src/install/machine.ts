import { constants } from "node:fs";
import { access, lstat, readlink } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { AppError, systemCode } from "../base/errors.ts";
import type { Config } from "../config.ts";
import { execute, type Outcome } from "../host/exec.ts";
import type { Places } from "./places.ts";

/** What every step of installing works with. */
export interface Machine {
  readonly places: Places;
  readonly config: Config;
  /** Passed on to programs: apt wants to know of proxies. Its PATH is where programs are looked for, and sbin. */
  readonly environment: NodeJS.ProcessEnv;
  readonly say: (line: string) => void;
}

/** Debian's place for ip and iptables, which is not in everybody's PATH. */
const sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

function pathOf({ environment }: Machine): string[] {
  return [...(environment.PATH ?? "").split(delimiter), ...sbin].filter((dir) => dir !== "");
}

/** Runs a program; a code other than 0 is a result. Fails with HOST_COMMAND when it is missing or takes too long. */
export function execOn(
  machine: Machine,
  command: string,
  args: readonly string[],
  timeoutMs: number,
): Promise<Outcome> {
  const environment = Object.entries(machine.environment).filter((entry): entry is [string, string] => !!entry[1]);
  const env = { ...Object.fromEntries(environment), PATH: pathOf(machine).join(delimiter), LC_ALL: "C" };
  return execute(command, args, { env, timeoutMs });
}

/** As `execOn`, but anything but 0 fails with HOST_COMMAND. */
export async function runOn(
  machine: Machine,
  command: string,
  args: readonly string[],
  timeoutMs: number,
): Promise<string> {
  const { code, stdout, stderr } = await execOn(machine, command, args, timeoutMs);
  if (code === 0) return stdout;
  const why = stderr.trim().split("\n").slice(0, 5).join("; ") || `exit code ${code}`;
  throw new AppError("HOST_COMMAND", [[command, ...args].join(" "), why]);
}

/** Whether a program is in the PATH. */
export async function has(machine: Machine, program: string): Promise<boolean> {
  for (const dir of pathOf(machine)) if (await isExecutable(join(dir, program))) return true;
  return false;
}

export async function isExecutable(file: string): Promise<boolean> {
  return access(file, constants.X_OK).then(
    () => true,
    () => false,
  );
}

export async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

/** Where a link leads to as it is written; undefined when there is none. */
export async function linkTarget(path: string): Promise<string | undefined> {
  return readlink(path).catch((e) => {
    if (["ENOENT", "EINVAL"].includes(systemCode(e) ?? "")) return undefined;
    throw e;
  });
}
