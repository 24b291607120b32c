import { readFile } from "node:fs/promises";
import type { Machine } from "./machine.ts";

/** Whatever a napd may leave on a machine, a line each: every file, and what the kernel, systemd and containerd hold. */
const inventory = `
find / -xdev ! -type d -printf 'file %p\\n'
find /run /sys/fs/cgroup -path '*napd*' -printf 'file %p\\n'
systemctl list-unit-files --no-legend --plain | awk '/napd/ { print "unit", $1 }'
ip -o link | awk '{ print "link", $2 }'
ip netns list | sed 's/^/network namespace /'
grep -E ' overlay | nsfs |napd' /proc/mounts | sed 's/^/mount /' || true
iptables-save | grep '^-' | sed 's/^/rule /' || true
pgrep -a 'containerd-shim|node' | sed 's/^/process /' || true
for space in $(ctr namespaces list -q); do
  for what in containers snapshots images leases content; do
    ctr -n "$space" $what list -q 2>/dev/null | sed "s|^|$what of containerd in $space: |"
  done
  echo "namespace of containerd: $space"
done
`;

/** What a machine makes by itself from its first boot on, and the state of packages that stay. */
const ofTheMachine = [
  /^link (lo|e\S+):$/,
  /^file \/(root\/\.(ssh|cache)|var\/(log|cache|tmp)|tmp)\//,
  /^file \/etc\/(ssh|netplan|cloud|apt|alternatives|sudoers\.d|systemd\/(network|system\/[a-z-]+\.target\.wants\/containerd))/,
  /^file \/etc\/(hosts|ld\.so\.cache|\.pwd\.lock|(sub|g?sha|passw|grou)\w+-?|locale.*|default\/locale|.*\.dpkg-\w+)$/,
  /^file \/var\/lib\/(apt|cloud|dpkg|systemd|containerd|dbus|private|ucf|logrotate)\//,
];

/**
 * What was neither in the bare system (its list is in `bareFiles`), nor comes with a package, nor belongs to the
 * machine itself: what napd has left.
 */
export async function leftovers(machine: Machine, bareFiles: string): Promise<string[]> {
  const packaged = (await machine.sh("cat /var/lib/dpkg/info/*.list", 300_000)).split("\n");
  const known = new Set([...packaged, ...(await readFile(bareFiles, "utf8")).split("\n")].map(unified));
  const lines = (await machine.sh(inventory, 300_000)).trimEnd().split("\n");
  return lines
    .filter((line) => !(line.startsWith("file ") && known.has(unified(line.slice(5)))))
    .filter((line) => !ofTheMachine.some((pattern) => pattern.test(line)));
}

/** Packages name some files by the links that /bin, /lib and /sbin are. */
function unified(path: string): string {
  return path.replace(/^\/usr\/(bin|sbin|lib|lib64)\//, "/$1/");
}
