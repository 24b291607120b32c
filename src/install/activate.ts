import { readFile, realpath, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { AppError, messageOf } from "../base/errors.ts";
import { databasesToChange, dropDatabaseCopies, keepDatabases, putDatabasesBack } from "./databases.ts";
import type { Machine } from "./machine.ts";
import { linkedRelease, pointTo, type Release, switchTo } from "./releases.ts";
import {
  journal,
  putUnits,
  service,
  serviceState,
  socket,
  socketAddress,
  systemctl,
  type Units,
  unitsIn,
} from "./systemd.ts";

/** What ran before, to go back to: a release of ours, or units that somebody else wrote, as an older layout had them. */
interface Before {
  readonly release: Release | undefined;
  readonly units: Units;
  /** The one before that. */
  readonly older: Release | undefined;
}

/**
 * Makes a release the one that runs: link, units, restart, and a look whether it answers within `waitMs`. Functions run
 * on. Running twice, or over an earlier run that was cut off, comes to the same. When a new release does not get
 * healthy, what ran before runs again. Fails with INSTALL.
 */
export async function activate(machine: Machine, release: Release, waitMs: number): Promise<void> {
  const { places, config } = machine;
  await dropDatabaseCopies(config.paths.data);
  const databases = databasesToChange(config.paths.data, release);
  const [current, older] = [await linkedRelease(places.current), await linkedRelease(places.previous)];
  const before = { release: current, units: await unitsIn(places.units), older };
  await switchTo(places, release);
  try {
    await runRelease(machine, release, databases, waitMs);
  } catch (e) {
    if (current?.folder !== release.folder) throw await goBack(machine, before, messageOf(e), waitMs);
    const remedy = older ? `napd install --rollback goes to napd ${older.version}` : mendIt;
    throw new AppError("INSTALL", [messageOf(e), remedy, await journal(machine)]);
  } finally {
    await dropDatabaseCopies(config.paths.data);
  }
}

const mendIt = "mend it and run this again; napd doctor may help";

/** Resolves with what is to be told. */
async function goBack(machine: Machine, before: Before, why: string, waitMs: number): Promise<AppError> {
  const { places, config } = machine;
  const lines = await journal(machine);
  const { release, units, older } = before;
  if (!release && units.size === 0) return new AppError("INSTALL", [why, mendIt, lines]);
  machine.say("going back to what ran before");
  try {
    await stop(machine);
    await putDatabasesBack(config.paths.data);
    if (release) await pointTo(places.current, release);
    else await rm(places.current);
    if (older) await pointTo(places.previous, older);
    else await rm(places.previous, { force: true });
    if (release) await runRelease(machine, release, [], waitMs);
    else {
      await putUnits(machine, units);
      await systemctl(machine, "start", service);
    }
  } catch (e) {
    const both = `${why}, and what ran before does not come back: ${messageOf(e)}`;
    return new AppError("INSTALL", [both, "see the journal", lines]);
  }
  return new AppError("INSTALL", [why, `${release ? `napd ${release.version}` : "what ran before"} runs again`, lines]);
}

/**
 * Restarts what has to be: nothing, when the release runs already by its units. Of `databases` copies are made before,
 * since the release before cannot read them any more afterwards.
 */
async function runRelease(
  machine: Machine,
  release: Release,
  databases: readonly string[],
  waitMs: number,
): Promise<void> {
  const changed = await enableUnits(machine, release);
  const { program } = await serviceState(machine);
  if (changed.length === 0 && program === programOf(release)) {
    await healthy(machine, release, waitMs);
    machine.say(`napd ${release.version} runs already`);
    return;
  }
  if (program === undefined) await needNoOther(machine);
  machine.say(program === undefined ? `starting napd ${release.version}` : "restarting napd; functions run on");
  await systemctl(machine, "reset-failed", service).catch(() => {});
  if (databases.length > 0) {
    await stop(machine);
    await keepDatabases(machine.config.paths.data, databases);
  }
  await openSocket(machine, changed);
  const failed = await systemctl(machine, "restart", service).then(
    () => undefined,
    (e) => e, // it is started again by itself, and may have had to wait for something
  );
  await healthy(machine, release, waitMs).catch((e) => {
    throw failed ?? e;
  });
}

/** With the socket, else the next caller would start it again. */
async function stop(machine: Machine): Promise<void> {
  for (const unit of [...(await unitsIn(machine.places.units)).keys()].sort().reverse())
    await systemctl(machine, "stop", unit);
}

/**
 * Puts a release's units in their place, so that it runs from the next start of the machine on; resolves with those
 * that are other than before. The socket keeps callers waiting while napd is restarted, in place of setting
 * `gateway.listen`; so it is used where both mean the same. Afterwards it is the administrator's to enable or disable.
 */
export async function enableUnits(machine: Machine, release: Release): Promise<readonly string[]> {
  const units = await unitsIn(join(release.folder, "systemd"));
  const { changed, added } = await putUnits(machine, units);
  await systemctl(machine, "enable", service);
  const { host, port } = machine.config.gateway.listen;
  const isSame = units.get(socket)?.includes(`\nListenStream=${host}:${port}\n`);
  if (added.includes(socket) && isSame) await systemctl(machine, "enable", socket);
  return changed;
}

async function openSocket(machine: Machine, changed: readonly string[]): Promise<void> {
  if (!(await isTrue(machine, "is-enabled", socket))) return;
  if (!changed.includes(socket) && (await isTrue(machine, "is-active", socket))) return;
  await systemctl(machine, "stop", service); // systemd opens no socket for a service that runs
  await systemctl(machine, "restart", socket);
}

async function isTrue(machine: Machine, question: "is-active" | "is-enabled", unit: string): Promise<boolean> {
  return systemctl(machine, question, unit).then(
    () => true,
    () => false,
  );
}

function programOf({ folder }: Release): string {
  return join(folder, "runtime/node");
}

/** A napd that somebody started in another way holds what this one is to work on. */
async function needNoOther({ config }: Machine): Promise<void> {
  const dir = await realpath(config.paths.run).catch(() => config.paths.run);
  const locks = await readFile("/proc/net/unix", "utf8");
  if (locks.split("\n").some((line) => line.endsWith(` @napd:${dir}`)))
    throw new AppError("INSTALL", [
      `another napd runs with paths.run ${config.paths.run}, which systemd knows nothing of`,
      "stop it, then run this again; its functions run on",
    ]);
}

/** Crashes in a row after which nobody waits any longer. */
const hopeless = 5;

/** Waits until the service runs this release and its gateway answers. */
async function healthy(machine: Machine, release: Release, waitMs: number): Promise<void> {
  const end = performance.now() + waitMs;
  for (;;) {
    const { active, program, restarts } = await serviceState(machine);
    if (program === programOf(release) && (await answers(machine))) return;
    if (active === "failed" || restarts >= hopeless) throw notHealthy(release, "it ends again and again");
    if (performance.now() > end) throw notHealthy(release, `it does not answer within ${waitMs / 1000} s`);
    await delay(200);
  }
}

function notHealthy({ version }: Release, why: string): AppError {
  return new AppError("INSTALL", [`napd ${version} is not healthy`, why]);
}

/** Of the gateway on this machine: where systemd holds the socket, that one's. */
export async function gatewayUrl(machine: Machine): Promise<string> {
  const { host, port } = (await socketAddress(machine)) ?? machine.config.gateway.listen;
  const reached = { "0.0.0.0": "127.0.0.1", "::": "[::1]" }[host] ?? (host.includes(":") ? `[${host}]` : host);
  return `http://${reached}:${port}`;
}

async function answers(machine: Machine): Promise<boolean> {
  return fetch(`${await gatewayUrl(machine)}/healthz`, { signal: AbortSignal.timeout(10_000) }).then(
    ({ status }) => status === 200,
    () => false,
  );
}
