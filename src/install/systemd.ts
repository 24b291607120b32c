import { mkdir, readdir, readFile, readlink, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execOn, exists, type Machine, runOn } from "./machine.ts";

export const service = "napd.service";
export const socket = "napd.socket";

/** A restart takes as long as requests under way may, and as long as the start. */
const restartMs = 5 * 60_000;

export function systemctl(machine: Machine, ...args: string[]): Promise<string> {
  return runOn(machine, "systemctl", args, restartMs);
}

/** As sd_booted(3) has it. */
export function hasSystemd({ places }: Machine): Promise<boolean> {
  return exists(join(places.root, "/run/systemd/system"));
}

/** Texts of units by name. */
export type Units = ReadonlyMap<string, string>;

/** The units of napd in a folder: of a release, or of this machine. */
export async function unitsIn(folder: string): Promise<Units> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => /^napd\.(service|socket)$/.test(name)).sort();
  return new Map(
    await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name), "utf8")] as const)),
  );
}

/** Names of units: those that are other than before, and among them those that there were none of. */
export interface UnitChanges {
  readonly changed: readonly string[];
  readonly added: readonly string[];
}

/** Makes this machine's units those. */
export async function putUnits(machine: Machine, units: Units): Promise<UnitChanges> {
  const folder = machine.places.units;
  const before = await unitsIn(folder);
  const changed = [...units].filter(([name, text]) => before.get(name) !== text).map(([name]) => name);
  const gone = [...before.keys()].filter((name) => !units.has(name));
  await mkdir(folder, { recursive: true, mode: 0o755 });
  for (const name of gone) {
    await systemctl(machine, "disable", "--now", name);
    await rm(join(folder, name));
  }
  for (const name of changed) {
    await writeFile(join(folder, `.${name}.new`), units.get(name)!, { mode: 0o644 });
    await rename(join(folder, `.${name}.new`), join(folder, name));
  }
  if (changed.length + gone.length > 0) await systemctl(machine, "daemon-reload");
  return { changed: [...changed, ...gone], added: changed.filter((name) => !before.has(name)) };
}

/** What systemd knows of napd.service. */
export interface ServiceState {
  /** `active`, `activating`, `inactive`, `failed` and so on. */
  readonly active: string;
  readonly pid: number;
  /** How often it was started again by itself since somebody started it. */
  readonly restarts: number;
  /** What the process runs; undefined without a process. */
  readonly program: string | undefined;
}

export async function serviceState(machine: Machine): Promise<ServiceState> {
  const { stdout } = await execOn(
    machine,
    "systemctl",
    ["show", "--property=ActiveState,MainPID,NRestarts", service],
    30_000,
  );
  const values = new Map(stdout.split("\n").map((line) => line.split("=", 2) as [string, string]));
  const pid = Number(values.get("MainPID") ?? 0);
  return {
    active: values.get("ActiveState") ?? "",
    pid,
    restarts: Number(values.get("NRestarts") ?? 0),
    program: pid > 0 ? await readlink(`/proc/${pid}/exe`).catch(() => undefined) : undefined,
  };
}

/** Where systemd listens for the gateway; undefined when it does not. */
export async function socketAddress(machine: Machine): Promise<{ host: string; port: number } | undefined> {
  const properties = ["show", "--property=ActiveState,Listen", socket];
  const { stdout } = await execOn(machine, "systemctl", properties, 30_000);
  const [, host, port] = /^Listen=(.*):(\d+) \(Stream\)$/m.exec(stdout) ?? [];
  if (host === undefined || !/^ActiveState=active$/m.test(stdout)) return undefined;
  return { host: host.replace(/^\[(.*)\]$/, "$1"), port: Number(port) };
}

/** The last lines of napd's journal, indented; empty where there is none. */
export async function journal(machine: Machine, lines = 15): Promise<string> {
  const args = ["--unit", service, "--lines", String(lines), "--no-pager", "--output", "cat"];
  const { stdout } = await execOn(machine, "journalctl", args, 30_000).catch(() => ({ stdout: "" }));
  return stdout.trimEnd().replace(/^/gm, "  ").trimEnd();
}
