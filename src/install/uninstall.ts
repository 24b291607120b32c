import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { AppError, messageOf } from "../base/errors.ts";
import { ensureContainerd } from "./containerd.ts";
import { has, linkTarget, type Machine } from "./machine.ts";
import { isOwn, programs } from "./places.ts";
import { hasSystemd, putUnits, service, socket, systemctl, unitsIn } from "./systemd.ts";

export interface UninstallOptions {
  /** Data, settings, logs and images too. */
  readonly purge: boolean;
  /** Removes what functions hold on this machine; resolves with how many replicas it has ended. */
  readonly removeFunctions: () => Promise<number>;
}

/** Takes away what `install` has brought, whatever of it is there. Fails with INSTALL; then run it again. */
export async function uninstall(machine: Machine, { purge, removeFunctions }: UninstallOptions): Promise<void> {
  const { places, config, say } = machine;
  if (await hasSystemd(machine)) {
    await stopUnits(machine);
    say("stopped napd");
  }
  await endFunctions(machine, removeFunctions);
  if (await hasSystemd(machine)) {
    await putUnits(machine, new Map());
    await systemctl(machine, "reset-failed", service).catch(() => {}); // there is none, as a rule
  }
  for (const program of programs) await removeLink(join(places.bin, program), places.home);
  const { data, logs, run } = config.paths;
  const always = [places.current, places.previous, places.releases, run];
  const units = [service, socket].map((unit) => join(places.units, `${unit}.d`));
  for (const path of purge ? [...always, data, logs, places.settings, ...units] : always)
    if (isOwn(path)) await rm(path, { recursive: true, force: true });
    else say(`${path} stays: it may not be napd's alone`);
  await rmdir(places.home).catch(() => {});
  const left = await readdir(places.home).catch(() => []);
  if (left.length > 0) say(`${places.home} stays, with what an installation has not put there: ${left.join(", ")}`);
  say(
    purge
      ? "removed data, settings and logs"
      : `data, settings and logs stay: ${data}, ${places.settings}, ${logs}; --purge removes them`,
  );
  say("packages of the distribution stay, such as containerd: others may use them");
}

async function stopUnits(machine: Machine): Promise<void> {
  // the socket first, else the next request would start the service again
  for (const unit of [...(await unitsIn(machine.places.units)).keys()].sort().reverse())
    await systemctl(machine, "disable", "--now", unit);
}

async function endFunctions(machine: Machine, removeFunctions: () => Promise<number>): Promise<void> {
  if (!(await has(machine, "containerd"))) return machine.say("there is no containerd, so there are no functions");
  try {
    await ensureContainerd(machine);
    const ended = await removeFunctions();
    machine.say(`removed ${ended} replicas of functions, networks, bridge and firewall rules`);
  } catch (cause) {
    throw new AppError(
      "INSTALL",
      [
        `what functions hold cannot be removed: ${messageOf(cause)}`,
        "see to it that containerd runs, then run this again",
      ],
      { cause },
    );
  }
}

/** A link into the installation; somebody else's program of that name stays. */
async function removeLink(link: string, home: string): Promise<void> {
  if ((await linkTarget(link))?.startsWith(`${home}/`)) await rm(link);
}
