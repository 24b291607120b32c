import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { AppError } from "../base/errors.ts";
import { execOn, exists, has, isExecutable, type Machine } from "./machine.ts";

/** A package by Debian's name, and whether what it brings is there, in whatever way it came. */
type Need = readonly [name: string, isThere: (machine: Machine) => Promise<boolean>];

const all = async (...found: Promise<boolean>[]) => (await Promise.all(found)).every(Boolean);
const some = async (...found: Promise<boolean>[]) => (await Promise.all(found)).some(Boolean);

const needs: readonly Need[] = [
  ["containerd", (machine) => has(machine, "containerd")],
  ["runc", (machine) => some(has(machine, "runc"), has(machine, "crun"))],
  ["containernetworking-plugins", hasPlugins],
  ["iptables", (machine) => all(has(machine, "iptables"), has(machine, "iptables-restore"))],
  ["iproute2", (machine) => has(machine, "ip")],
  ["mount", (machine) => all(has(machine, "mount"), has(machine, "umount"))],
  ["ca-certificates", (machine) => exists(join(machine.places.root, "/etc/ssl/certs/ca-certificates.crt"))],
];

async function hasPlugins({ config }: Machine): Promise<boolean> {
  const dirs = config.network.plugins.map((dir) =>
    all(isExecutable(join(dir, "bridge")), isExecutable(join(dir, "host-local"))),
  );
  return some(...dirs);
}

async function missingPackages(machine: Machine): Promise<string[]> {
  const found = await Promise.all(needs.map(([, isThere]) => isThere(machine)));
  return needs.filter((_, i) => !found[i]).map(([name]) => name);
}

/** Other programs may install at this moment, such as a new machine's own upgrades: how long they are waited for, s. */
const lockSeconds = 300;
const aptMs = 30 * 60_000;

/** Installs what is missing: from the distribution, or from the `.deb` files of `folder`. Fails with INSTALL. */
export async function installPackages(machine: Machine, folder: string | undefined): Promise<void> {
  const missing = await missingPackages(machine);
  if (missing.length === 0) return;
  if (!(await has(machine, "apt-get")))
    throw new AppError("INSTALL", [
      `this machine lacks ${missing.join(", ")} (Debian's names) and has no apt-get`,
      "install them your way, then run this again",
    ]);
  machine.say(`installing ${missing.join(", ")} …`);
  if (folder !== undefined) await installFiles(machine, missing, resolve(folder));
  else await installFromDistribution(machine, missing);
  const left = await missingPackages(machine);
  if (left.length > 0)
    throw new AppError("INSTALL", [
      `${left.join(", ")} is missing still`,
      folder === undefined
        ? "install it your way, then run this again"
        : `put it into ${folder}, with all it depends on`,
    ]);
}

async function installFiles(machine: Machine, missing: readonly string[], folder: string): Promise<void> {
  const names = await readdir(folder).catch((cause) => {
    throw new AppError("INSTALL", [`${folder} cannot be read`, "name a folder with .deb files"], { cause });
  });
  const files = names.filter((name) => name.endsWith(".deb")).map((name) => join(folder, name));
  if (files.length === 0)
    throw new AppError("INSTALL", [
      `${folder} has no .deb files, and this machine lacks ${missing.join(", ")}`,
      "put them there, with all they depend on",
    ]);
  const why = await aptInstall(machine, files);
  if (why !== undefined)
    throw new AppError("INSTALL", [`the packages of ${folder} cannot be installed: ${why}`, "add what they depend on"]);
}

async function installFromDistribution(machine: Machine, missing: readonly string[]): Promise<void> {
  // the lists may be old, or not there at all; where they are good, nothing has to be fetched twice
  if ((await aptInstall(machine, missing)) === undefined) return;
  const updated = await apt(machine, ["update"]);
  const why = await aptInstall(machine, missing);
  if (why === undefined) return;
  throw new AppError("INSTALL", [
    `apt-get cannot install ${missing.join(", ")}: ${updated ?? why}`,
    "see to it that this machine reaches its package mirror, or bring the packages as files (--packages FOLDER); then run this again",
  ]);
}

/** Why it could not be done, or undefined. Configuration files of others stay as they are: nobody is there to be asked. */
function aptInstall(machine: Machine, what: readonly string[]): Promise<string | undefined> {
  return apt(machine, ["-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "install", ...what]);
}

async function apt(machine: Machine, args: readonly string[]): Promise<string | undefined> {
  const environment = { ...machine.environment, DEBIAN_FRONTEND: "noninteractive" };
  const options = ["-q", "-o", `DPkg::Lock::Timeout=${lockSeconds}`];
  const { code, stdout, stderr } = await execOn({ ...machine, environment }, "apt-get", [...options, ...args], aptMs);
  if (code === 0) return undefined;
  const lines = `${stdout}\n${stderr}`.split("\n").filter((line) => line.trim() !== "");
  return lines.find((line) => /^(E|Err):?/.test(line)) ?? lines.at(-1) ?? `exit code ${code}`;
}
