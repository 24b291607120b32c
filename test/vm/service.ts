/** napd under systemd. */
import assert from "node:assert/strict";
import { startCallers } from "./callers.ts";
import { greeting } from "./discs.ts";
import { get, type Subject, until } from "./subject.ts";

async function show({ machine }: Subject, ...names: string[]): Promise<Record<string, string>> {
  const text = await machine.sh(`systemctl show napd -p ${names.join(",")}`);
  return Object.fromEntries(
    text
      .trim()
      .split("\n")
      .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
}

export async function status(subject: Subject): Promise<string> {
  const { Type, ActiveState, SubState, NRestarts, StatusText } = await show(
    subject,
    ...["Type", "ActiveState", "SubState", "NRestarts", "StatusText"],
  );
  assert.deepEqual([Type, ActiveState, SubState, NRestarts], ["notify", "active", "running", "0"]);
  assert.equal((await subject.machine.sh("systemctl --failed --no-legend")).trim(), "");
  return `active; ${StatusText}`;
}

/** Resident memory of napd, when nobody asks anything of it. */
export async function memory(subject: Subject): Promise<string> {
  const { MainPID } = await show(subject, "MainPID");
  const rollup = `grep -E '^(Rss|Pss|Private_Dirty):' /proc/${MainPID}/smaps_rollup; grep VmHWM /proc/${MainPID}/status`;
  return (await subject.machine.sh(rollup)).trim().replace(/ +/g, " ").split("\n").join(", ");
}

/** A napd that stands still is ended by systemd's watchdog and started again; functions are not touched. */
export async function watchdog(subject: Subject): Promise<string> {
  const before = await show(subject, "MainPID", "WatchdogUSec");
  const hello = await subject.processOf("hello");
  await subject.machine.sh(`kill -STOP ${before.MainPID}`);
  await until(240_000, async () => {
    const { MainPID, NRestarts, ActiveState } = await show(subject, "MainPID", "NRestarts", "ActiveState");
    assert.ok(MainPID !== before.MainPID && NRestarts === "1" && ActiveState === "active", NRestarts);
  });
  assert.equal(await get(subject.url("hello")), greeting);
  assert.equal(await subject.processOf("hello"), hello);
  return `WatchdogUSec ${before.WatchdogUSec}: a new napd, the same process of the function`;
}

/** Four callers all the time: none may be refused or cut off, and the function's process stays the same. */
export async function underLoad(subject: Subject, work: () => Promise<unknown>): Promise<string> {
  const hello = await subject.processOf("hello");
  const callers = startCallers(subject.url("hello"), 4);
  const begin = performance.now();
  const done = work().then(() => get(subject.url("hello")));
  await done.catch(() => {}); // the calls are looked at first: they may say why
  const took = (performance.now() - begin) / 1000;
  const { answered, failed, slowestMs } = await callers.stop();
  await done;
  assert.deepEqual(failed, [], `${failed.length} calls failed, ${answered} were answered`);
  assert.equal(await subject.processOf("hello"), hello);
  return `${took.toFixed(1)} s, ${answered} calls, none failed, the slowest ${Math.round(slowestMs)} ms; the same process`;
}

export function restart(subject: Subject): Promise<string> {
  return underLoad(subject, () => subject.machine.sh("systemctl restart napd", 180_000));
}

/** To an unpacked release. */
export function upgrade(subject: Subject, folder: string, version: string): Promise<string> {
  return underLoad(subject, async () => {
    await subject.machine.sh(`sh ${folder}/install.sh --wait 10m`, 900_000);
    assert.equal((await subject.api("GET", "/system/info")).version.release, version);
  });
}

export function rollBack(subject: Subject, version: string): Promise<string> {
  return underLoad(subject, async () => {
    await subject.machine.sh("napd install --rollback --wait 10m", 900_000);
    assert.equal((await subject.api("GET", "/system/info")).version.release, version);
  });
}
