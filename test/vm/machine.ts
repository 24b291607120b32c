import { execFile } from "node:child_process";
import { chmod, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { type Child, startChild } from "../../scripts/child.ts";
import { freePort } from "../support/free-port.ts";
import { type Accelerator, processorOf } from "./accelerator.ts";
import type { BaseImage } from "./base-image.ts";

const run = promisify(execFile);

export interface MachineOptions {
  /** Of the machine's own files, empty; the console's log and the disk are made there. */
  readonly dir: string;
  readonly base: BaseImage;
  readonly accelerator: Accelerator;
  /** ISO files, read-only. */
  readonly discs: readonly string[];
}

/** A virtual machine with a disk of its own over the base image. Disposing it ends it. */
export interface Machine extends AsyncDisposable {
  /** Port 8080 of the machine, as others reach it. */
  readonly gateway: string;
  readonly consoleFile: string;
  /** The command line for a look inside. */
  readonly login: string;
  /** Starts it; resolves at once. */
  powerOn(): Promise<void>;
  /** The plug is pulled: what was not on the disk is lost. */
  powerOff(): Promise<void>;
  /** Runs a shell script as root and gives its output; fails with it when the script does. `timeoutMs` default 120 s. */
  sh(script: string, timeoutMs?: number): Promise<string>;
  /** Until root can log in. */
  untilUp(timeoutMs: number): Promise<void>;
}

/**
 * Root's key comes in as one of systemd's credentials, on the kernel's command line: so a machine whose cloud-init
 * failed can be looked at too. Network is qemu's own; the two ports are those of loopback.
 */
export async function openMachine({ dir, base, accelerator, discs }: MachineOptions): Promise<Machine> {
  const [disk, key] = [join(dir, "disk.qcow2"), join(dir, "key")];
  const consoleFile = join(dir, "console.log");
  await run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base.disk, disk]);
  await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "napd-test", "-f", key]);
  await chmod(key, 0o600);
  const credential = (await readFile(`${key}.pub`)).toString("base64");
  const [gatewayPort, sshPort] = [await freePort(), await freePort()];

  const forward = [`hostfwd=tcp:127.0.0.1:${gatewayPort}-:8080`, `hostfwd=tcp:127.0.0.1:${sshPort}-:22`];
  const drives = [`file=${disk},format=qcow2`, ...discs.map((file) => `file=${file},format=raw,readonly=on`)];
  // a translated kernel may meet a mistake of qemu's and panic (seen: one boot in six); then it boots again
  const line = `root=LABEL=root rw console=ttyS0 panic=1 systemd.set_credential_binary=ssh.authorized_keys.root:${credential}`;
  const args = [
    ...["-n", "5", "qemu-system-x86_64", "-machine", "q35", ...processorOf[accelerator], "-smp", "2", "-m", "2048"],
    ...["-kernel", base.kernel, "-initrd", base.initrd, "-append", line],
    ...drives.flatMap((drive) => ["-drive", `${drive},if=virtio`]),
    ...["-netdev", `user,id=net,${forward.join(",")}`, "-device", "virtio-net-pci,netdev=net"],
    ...["-device", "virtio-rng-pci", "-display", "none"],
    ...["-chardev", `file,id=console,path=${consoleFile},append=on`, "-serial", "chardev:console", "-monitor", "none"],
  ];
  const ssh = [
    ...["-F", "none", "-i", key, "-p", String(sshPort), "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"],
    ...["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20"],
    // one connection for all: making one takes a second of a translated processor
    ...["-o", "ControlMaster=auto", "-o", `ControlPath=${join(dir, "ssh")}`, "-o", "ControlPersist=yes"],
  ];
  let qemu: Child | undefined;

  const hangUp = async () => {
    await run("ssh", [...ssh, "-O", "exit", "root@127.0.0.1"]).catch(() => {}); // there was none
  };
  const sh = async (script: string, timeoutMs = 120_000): Promise<string> => {
    const running = run("ssh", [...ssh, "root@127.0.0.1", "sh", "-eu"], { timeout: timeoutMs, maxBuffer: 2 ** 26 });
    running.child.stdin?.on("error", () => {}).end(script);
    const { stdout } = await running.catch((e) => {
      const why = e.killed ? `no answer within ${timeoutMs / 1000} s` : `exit code ${e.code}`;
      throw new Error(`in the machine: ${why}\n${script}\n${e.stdout}${e.stderr}`);
    });
    return stdout;
  };
  return {
    gateway: `http://127.0.0.1:${gatewayPort}`,
    consoleFile,
    login: ["ssh", ...ssh, "root@127.0.0.1"].join(" "),
    sh,
    async powerOn() {
      qemu = await startChild("nice", args, { logFile: join(dir, "qemu.log") });
    },
    async powerOff() {
      await hangUp();
      await qemu?.kill9();
    },
    async untilUp(timeoutMs) {
      const end = performance.now() + timeoutMs;
      for (;;) {
        const failed = await sh("true", 30_000).then(
          () => undefined,
          (e: Error) => e,
        );
        if (!failed) return;
        if (performance.now() > end) throw failed;
        await delay(1000);
      }
    },
    async [Symbol.asyncDispose]() {
      await hangUp();
      await qemu?.kill9();
      for (const file of [disk, key, `${key}.pub`]) await rm(file, { force: true });
    },
  };
}
