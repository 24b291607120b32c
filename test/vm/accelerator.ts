import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { BaseImage } from "./base-image.ts";

/** How qemu runs the machine's processor: in hardware, or translated, which takes about ten times as long. */
export type Accelerator = "kvm" | "tcg";

export const processorOf: Readonly<Record<Accelerator, readonly string[]>> = {
  kvm: ["-accel", "kvm", "-cpu", "host"],
  // Without cx16: two translated processors spoil each other's flags in cmpxchg16b (seen with qemu 7.2: the kernel
  // dies of a double fault behind it). The others would only cost time: five levels of page tables, nested machines.
  tcg: ["-accel", "tcg,thread=multi", "-cpu", "max,cx16=off,la57=off,svm=off"],
};

/**
 * Whether KVM really runs this kernel is tried: /dev/kvm may be there where no ordinary guest comes up, as in virtual
 * machines that can only nest guests made for them.
 */
export async function findAccelerator({ kernel, initrd }: BaseImage): Promise<Accelerator> {
  if (!existsSync("/dev/kvm")) return "tcg";
  const boot = ["-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 panic=-1"];
  const screen = ["-m", "512", "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"];
  const qemu = spawn("qemu-system-x86_64", [...processorOf.kvm, ...boot, ...screen], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const verdict = new Promise<Accelerator>((resolve) => {
    let said = "";
    const hear = (text: Buffer) => {
      said += text;
      if (said.includes("Run /init")) resolve("kvm");
      if (/emulation failure|internal error/.test(said)) resolve("tcg");
    };
    qemu.stdout.on("data", hear);
    qemu.stderr.on("data", hear);
    qemu.once("error", () => resolve("tcg"));
    qemu.once("exit", () => resolve("tcg"));
  });
  try {
    return await Promise.race([verdict, delay(20_000, "tcg" as const, { ref: false })]);
  } finally {
    qemu.kill("SIGKILL");
  }
}
