import { chmod, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { AppError } from "../base/errors.ts";
import { openCredentials } from "../store/credentials.ts";
import { activate, enableUnits, gatewayUrl } from "./activate.ts";
import { ensureContainerd } from "./containerd.ts";
import { exists, linkTarget, type Machine, runOn } from "./machine.ts";
import { installPackages } from "./packages.ts";
import { isOwn, programs } from "./places.ts";
import { bringIn, linkedRelease, prune, type Release, switchTo } from "./releases.ts";
import { hasSystemd } from "./systemd.ts";

export interface InstallOptions {
  /** The unpacked release. */
  readonly release: Release;
  /** Packages and images as files, for machines without a network. */
  readonly packages: string | undefined;
  /** False: everything is put in its place, and nothing is started. */
  readonly start: boolean;
  /** How long napd may take to answer, ms. */
  readonly waitMs: number;
}

/** One step: idempotent, says what it did unless that was nothing. */
type Step = (machine: Machine, options: InstallOptions) => Promise<void>;

const steps: readonly Step[] = [needSystemd, packages, containerd, directories, settings, credentials, bring, images];

/** Installs a release, or upgrades to it. Fails with INSTALL; running it again goes on where it stopped. */
export async function install(machine: Machine, options: InstallOptions): Promise<void> {
  for (const step of steps) await step(machine, options);
}

/** Goes to the release before. Fails with INSTALL; then the one that ran runs on. */
export async function rollBack(machine: Machine, waitMs: number): Promise<void> {
  await needSystemd(machine);
  const { places } = machine;
  const previous = await linkedRelease(places.previous);
  if (!previous) throw new AppError("INSTALL", ["there is no release before this one", "install the one you want"]);
  await activate(machine, previous, waitMs);
  machine.say(`napd ${previous.version} runs: ${previous.name}`);
}

async function needSystemd(machine: Machine): Promise<void> {
  if (!(await hasSystemd(machine)))
    throw new AppError("INSTALL", [
      "systemd does not run here",
      "napd runs without it too: unpack the release anywhere and start bin/napd as root",
    ]);
}

function packages(machine: Machine, { packages }: InstallOptions): Promise<void> {
  return installPackages(machine, packages);
}

async function containerd(machine: Machine, { start }: InstallOptions): Promise<void> {
  if (start) await ensureContainerd(machine);
}

async function directories({ places, config }: Machine): Promise<void> {
  const { data, logs } = config.paths;
  for (const [dir, mode] of [
    [places.home, 0o755],
    [places.settings, 0o755],
    [data, 0o700],
    [logs, 0o700],
  ] as const) {
    await mkdir(dir, { recursive: true, mode });
    if (isOwn(dir)) await chmod(dir, mode);
  }
}

const firstSettings = `; What differs from the defaults. napd.ini.example beside this file has every setting with its meaning;
; napd --print-config says what holds. See also docs/configuration.md of the release.
`;

/** The file is its owner's: it is written once, and never again. */
async function settings({ places }: Machine, { release }: InstallOptions): Promise<void> {
  const file = join(places.settings, "napd.ini");
  if (!(await exists(file))) await writeFile(file, firstSettings, { mode: 0o644 });
  const reference = await readFile(join(release.folder, "systemd/napd.ini")).catch(() => undefined);
  if (reference) await writeFile(`${file}.example`, reference, { mode: 0o644 });
}

async function credentials({ config }: Machine): Promise<void> {
  const dir = credentialsDir(config.paths.data);
  await openCredentials(dir);
  await chmod(dir, 0o700);
  for (const name of await readdir(dir)) await chmod(join(dir, name), 0o600);
}

function credentialsDir(data: string): string {
  return join(data, "credentials");
}

/** The release itself, and from then on it is the one that runs. */
async function bring(machine: Machine, { release, start, waitMs }: InstallOptions): Promise<void> {
  const { places } = machine;
  const placed = await bringIn(machine, release);
  if (start) await activate(machine, placed, waitMs);
  else {
    await switchTo(places, placed);
    await enableUnits(machine, placed);
  }
  await mkdir(places.bin, { recursive: true, mode: 0o755 });
  for (const program of programs) await linkProgram(machine, program);
  for (const name of await prune(places)) machine.say(`release ${name} stays: functions run on its watchdog`);
  machine.say(`napd ${placed.version} is installed: ${placed.folder}`);
}

async function linkProgram({ places, say }: Machine, program: string): Promise<void> {
  const link = join(places.bin, program);
  const target = join(places.current, "bin", program);
  const found = await linkTarget(link);
  if (found === target) return;
  if (found === undefined && (await exists(link))) return say(`${link} is a file of somebody else and stays`);
  await rm(`${link}.new`, { force: true });
  await symlink(target, `${link}.new`);
  await rename(`${link}.new`, link);
}

/** Archives of images beside the packages. */
async function images(machine: Machine, { packages, start }: InstallOptions): Promise<void> {
  if (packages === undefined || !start) return;
  for (const name of (await readdir(packages)).filter((name) => name.endsWith(".tar")).sort()) {
    const napd = join(machine.places.current, "bin/napd");
    const config = ["--config", join(machine.places.settings, "napd.ini")];
    const printed = await runOn(machine, napd, ["import", ...config, resolve(packages, name)], 10 * 60_000);
    machine.say(`imported ${printed.trim().split("\n").join(", ")}`);
  }
}

/** What somebody types who has just installed it. */
export async function nextSteps(machine: Machine): Promise<string> {
  const url = await gatewayUrl(machine);
  const password = join(credentialsDir(machine.config.paths.data), "basic-auth-password");
  const gateway = url === "http://127.0.0.1:8080" ? "" : ` -g ${url}`;
  return `
napd answers at ${url}. Next:

  nap login${gateway} --password-stdin < ${password}
  nap store deploy figlet${gateway}
  echo hello | nap invoke figlet${gateway}

  napd doctor                      what is amiss on this machine, if anything
  ${join(machine.places.settings, "napd.ini")}              settings; then systemctl restart napd
`;
}
