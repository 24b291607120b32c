/**
 * `npm run test:vm`: napd on a bare Debian 13 that qemu boots: installed by cloud-init from a folder, called from
 * outside, looked at on cgroup v2, restarted, killed, upgraded under load, taken away. Ten to twenty minutes where
 * KVM does not work. Not part of `npm test`.
 *
 *     npm run test:vm -- --hold     a machine in which something failed stays up until Ctrl-C
 *     npm run test:vm -- --online   packages come from Debian's mirror instead of the folder
 *
 * The disk of the bare system is kept in dist/vm. So are console and journal when a step fails.
 */
import assert from "node:assert/strict";
import { globSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Accelerator, findAccelerator } from "./accelerator.ts";
import { type BaseImage, baseImage } from "./base-image.ts";
import { fillIn, greeting, images, makeNextRelease, makeRelease, writePayload, writeSeed } from "./discs.ts";
import { doctor, limits, outOfMemory, sleepAndWake, usage } from "./kernel.ts";
import { leftovers } from "./leftovers.ts";
import { type Machine, openMachine } from "./machine.ts";
import { memory, restart, rollBack, status, upgrade, watchdog } from "./service.ts";
import { get, password, type Subject, subjectOn, until } from "./subject.ts";

const root = join(import.meta.dirname, "../..");
const nextVersion = "99.0.0";

const options = { hold: { type: "boolean", default: false }, online: { type: "boolean", default: false } } as const;
const { values } = parseArgs({ options });

const start = performance.now();

/** Prints what a step resolves with, and how long it took. */
async function step<T>(name: string, work: () => Promise<T>): Promise<T> {
  const begin = performance.now();
  const seconds = (since: number) => ((performance.now() - since) / 1000).toFixed(1).padStart(6);
  try {
    const result = await work();
    console.log(`ok    ${seconds(start)} s  ${seconds(begin)} s  ${name}`);
    if (typeof result === "string") console.log(result.replace(/^/gm, `${" ".repeat(28)}`));
    return result;
  } catch (e) {
    console.log(`FAIL  ${seconds(start)} s  ${seconds(begin)} s  ${name}`);
    console.log(e instanceof Error && "stderr" in e ? e.message : e);
    throw e;
  }
}

/** Boot to the first answer to a caller outside. */
const firstAnswer = (subject: Subject, timeoutMs: number) =>
  until(timeoutMs, async () => assert.equal(await get(subject.url("hello")), greeting));

async function main(): Promise<void> {
  const cache = join(root, "dist/vm");
  await mkdir(cache, { recursive: true });
  for (const old of readdirSync(cache)) if (old.startsWith("run-")) await rm(join(cache, old), { recursive: true });
  const dir = await mkdtemp(join(cache, "run-"));

  let base!: BaseImage;
  await step("a bare Debian 13", async () => {
    const { isNew, ...made } = await baseImage(cache);
    base = made;
    return isNew ? "made" : "kept from an earlier run";
  });
  let accelerator!: Accelerator;
  await step("a processor for it", async () => {
    accelerator = await findAccelerator(base);
    return accelerator === "kvm" ? "KVM" : "translated by qemu (TCG): KVM does not work here";
  });
  let archive!: string;
  let next!: string;
  await step("the release, and another one", async () => {
    archive = await makeRelease(dir);
    next = await makeNextRelease(archive, dir, nextVersion);
  });
  const napd = await writePayload(dir, { archive, next, debs: values.online ? undefined : base.debs });
  const variables = { NAPD_FROM: "/mnt/napd", NAPD_MOUNT: "LABEL=napd", NAPD_PASSWORD: password };
  const userData = fillIn(readFileSync(join(root, "cloud-init/user-data.yaml"), "utf8"), {
    ...variables,
    NAPD_FUNCTIONS: "/mnt/napd/functions.yaml",
  });
  const seed = await writeSeed(dir, userData);

  await using machine = await openMachine({ dir, base, accelerator, discs: [seed, napd] });
  try {
    await steps(subjectOn(machine), base, next.slice(next.lastIndexOf("/") + 1));
    for (const file of readdirSync(dir)) await rm(join(dir, file), { recursive: true, force: true });
  } catch (e) {
    await keepTraces(machine, dir);
    if (values.hold) await hold(machine);
    throw e;
  }
  await machine[Symbol.asyncDispose]();
  await rm(dir, { recursive: true });
  console.log(`everything done in ${Math.round((performance.now() - start) / 1000)} s`);
}

async function steps(subject: Subject, { files }: BaseImage, nextFolder: string): Promise<void> {
  const { machine } = subject;
  await machine.powerOn();
  await step("from power on to the first answered call: boot, cloud-init, install, deploy", () =>
    firstAnswer(subject, 1_800_000),
  );
  await step("cloud-init has done its work", async () => {
    const said = await machine.sh("cloud-init status --wait --long || true", 600_000);
    assert.match(said, /^status: done$/m, said);
    const valid = await machine.sh("cloud-init schema --system 2>&1 || true");
    assert.match(valid, /Valid schema/, valid);
    return (
      await machine.sh(
        "grep 'napd setup: functions answer' /var/log/cloud-init-output.log; uname -r; stat -fc %T /sys/fs/cgroup",
      )
    ).trim();
  });
  await step("a function by the watchdog that napd brings", async () => {
    assert.equal((await get(subject.url("count"), { method: "POST", body: "four" })).trim(), "4");
  });
  await step("systemctl status", () => status(subject));
  await step("memory of napd at rest", () => memory(subject));
  await step("napd doctor", () => doctor(subject));
  await step("limits in the control group", () => limits(subject));
  await step("frozen when idle, woken by a call", () => sleepAndWake(subject));
  await step("usage and metrics", () => usage(subject));
  await step("out of memory, in the function's status", () => outOfMemory(subject));
  await step("systemctl restart under load", () => restart(subject));
  await step("a napd that stands still", () => watchdog(subject));

  await step("a function from a folder, a moment before the power is cut", () => makeLate(subject));
  await machine.powerOff();
  await machine.powerOn();
  await step("from a power cut to the first answered call", () => firstAnswer(subject, 600_000));
  await step("the late function answers as before", () =>
    until(120_000, async () => assert.equal(await get(subject.url("late")), "late\n")),
  );
  await step("systemctl status", async () => {
    await machine.untilUp(300_000);
    return status(subject);
  });

  const { release } = (await subject.api("GET", "/system/info")).version;
  await machine.sh("mount -o ro LABEL=napd /mnt/napd");
  await step("upgrade under load", () => upgrade(subject, `/mnt/napd/${nextFolder}`, nextVersion));
  await step("rollback under load", () => rollBack(subject, release));
  await step("uninstall, then with --purge", () => uninstall(subject, `/mnt/napd/${nextFolder}`, files));
}

/** Its layer is in no disk's cache but the kernel's unless napd sees to that. */
async function makeLate({ machine, url }: Subject): Promise<void> {
  const script = [
    'export OPENFAAS_CONFIG=$(mktemp -d); cd "$OPENFAAS_CONFIG"; mkdir late',
    "printf '#!/bin/busybox sh\\necho late\\n' > late/handler.sh; chmod +x late/handler.sh",
    `printf %s ${password} | nap login --username admin --password-stdin`,
    `nap up late --base ${images.hello} --process ./handler.sh`,
  ];
  await machine.sh(script.join("; "), 600_000);
  assert.equal(await get(url("late")), "late\n");
}

async function uninstall({ machine }: Subject, release: string, bareFiles: string): Promise<string> {
  await machine.sh("napd uninstall", 600_000);
  await machine.sh("test -f /var/lib/napd/state.db; ! test -e /usr/local/bin/napd; ! systemctl cat napd 2>/dev/null");
  await machine.sh(`${release}/bin/napd uninstall --purge; umount /mnt/napd; rmdir /mnt/napd`, 600_000);
  assert.deepEqual(await leftovers(machine, bareFiles), []);
  return "nothing is left";
}

/** What happened, for those who look why. */
async function keepTraces(machine: Machine, dir: string): Promise<void> {
  const script =
    "cat /var/log/cloud-init-output.log; journalctl -b --no-pager -o short-precise; systemctl status --no-pager napd";
  const said = await machine.sh(`set +e; ${script}`).catch((e) => String(e));
  writeFileSync(join(dir, "journal.log"), said);
  for (const file of globSync(join(dir, "*.{iso,tar,tar.gz}"))) await rm(file);
  console.log(`what the machine said: ${machine.consoleFile}, ${join(dir, "journal.log")}`);
}

function hold(machine: Machine): Promise<void> {
  console.log(`the machine stays up until Ctrl-C: ${machine.login}`);
  return new Promise((resolve) => process.once("SIGINT", () => resolve()));
}

await main().catch(() => {
  process.exitCode = 1; // which step and why was said there
});
