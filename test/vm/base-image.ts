/**
 * The disk of a bare Debian 13: systemd, cloud-init, sshd, and nothing that napd needs. Made once by mmdebstrap from
 * Debian's packages and kept; with it the kernel, since the machine is booted without a boot loader, and the packages
 * that an installation of napd adds, for machines without a network.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, globSync, readdirSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

const suite = "trixie";
const diskSize = "8G";

/** What Debian's own cloud images have, as far as a boot needs it. */
const packages = [
  ...["systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "procps", "sudo", "zstd"],
  ...["linux-image-cloud-amd64", "initramfs-tools", "netplan.io", "iproute2", "ca-certificates"],
  ...["cloud-init", "e2fsprogs", "openssh-server"],
];

/** What install.sh asks a distribution for. */
const added = ["containerd", "runc", "containernetworking-plugins", "iptables", "libstdc++6"];

/** Run by mmdebstrap in the machine that built it, with the new root as `$1`; `dir` is where what else is kept goes. */
const hooks = (dir: string) => [
  `chroot "$1" apt-get clean`,
  `chroot "$1" apt-get install -y -q --no-install-recommends --download-only ${added.join(" ")}`,
  `cp "$1"/var/cache/apt/archives/*.deb ${dir}/debs/ && chroot "$1" apt-get clean`,
  `echo "LABEL=root / ext4 defaults 0 1" > "$1/etc/fstab"`,
  `echo vm > "$1/etc/hostname"`,
  `rm -f "$1"/etc/ssh/ssh_host_* && : > "$1/etc/machine-id"`,
  `chroot "$1" systemctl enable systemd-networkd systemd-resolved ssh`,
];

export interface BaseImage {
  /** A raw disk with one ext4; to be left as it is. */
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
  /** A folder of .deb files. */
  readonly debs: string;
  /** A list of the disk's files. */
  readonly files: string;
}

/** From `cache`, where what an older recipe made is removed; built when it is not there, which takes a minute or two. */
export async function baseImage(cache: string): Promise<BaseImage & { isNew: boolean }> {
  const recipe = JSON.stringify([suite, diskSize, packages, hooks("")]);
  const dir = join(cache, `base-${createHash("sha256").update(recipe).digest("hex").slice(0, 12)}`);
  const isNew = !existsSync(dir);
  if (isNew) {
    await mkdir(cache, { recursive: true });
    for (const old of readdirSync(cache)) if (/^(\.?base-)/.test(old)) await remove(join(cache, old));
    const work = await mkdtemp(join(cache, ".base-"));
    await build(work);
    await rename(work, dir);
  }
  const boot = (pattern: string) => globSync(join(dir, pattern))[0]!;
  return {
    disk: join(dir, "disk"),
    kernel: boot("vmlinuz-*"),
    initrd: boot("initrd.img-*"),
    debs: join(dir, "debs"),
    files: join(dir, "files"),
    isNew,
  };
}

async function build(dir: string): Promise<void> {
  const root = join(dir, "root");
  await mkdir(join(dir, "debs"));
  // from mmdebstrap's own idea of Debian's mirror
  const options = ["--variant=minbase", `--include=${packages.join(",")}`];
  const quiet = { maxBuffer: 2 ** 28 };
  await run("mmdebstrap", [...options, ...hooks(dir).map((h) => `--customize-hook=${h}`), suite, root], quiet);
  for (const file of globSync(`${root}/boot/{vmlinuz,initrd.img}-*`)) await run("cp", [file, dir]);
  await writeFile(join(dir, "disk"), "");
  await run("truncate", ["-s", diskSize, join(dir, "disk")]);
  await run("mke2fs", ["-q", "-t", "ext4", "-L", "root", "-d", root, join(dir, "disk")], quiet);
  const { stdout } = await run("find", [root, "!", "-type", "d", "-printf", "/%P\\n"], quiet);
  await writeFile(join(dir, "files"), stdout);
  await remove(root);
}

const remove = (path: string) => rm(path, { recursive: true, force: true });
