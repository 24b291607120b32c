/**
 * Writes src/host/oci/seccomp.json: the system calls that a function may make. Run `npm run build:seccomp` on a
 * machine with the kernel's headers (Debian: linux-libc-dev) and look at the difference before committing it.
 *
 * The list is everything the headers know minus the groups below. A list of what is denied is what can be reviewed;
 * a list of what is allowed is what is safe to ship: a call that a later kernel adds is not in it.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

/** Calls that no function needs, or that only serve to get out of a container. Names of all architectures. */
export const denied = {
  "namespaces and mounts":
    "unshare setns mount umount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr statmount listmount open_tree_attr",
  "modules, kexec, reboot, swap, quota, accounting":
    "init_module finit_module delete_module create_module query_module get_kernel_syms kexec_load kexec_file_load reboot swapon swapoff quotactl quotactl_fd acct vhangup syslog sethostname setdomainname",
  "tracing, bpf, perf, userfaultfd":
    "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp bpf perf_event_open userfaultfd fanotify_init fanotify_mark lookup_dcookie uretprobe",
  keyrings: "add_key request_key keyctl",
  "setting the clock": "settimeofday clock_settime clock_settime64 clock_adjtime clock_adjtime64 adjtimex stime",
  "raw input and output": "ioperm iopl modify_ldt pciconfig_iobase pciconfig_read pciconfig_write vm86 vm86old",
  "opening files by handle": "name_to_handle_at open_by_handle_at",
  io_uring: "io_uring_setup io_uring_enter io_uring_register",
  "NUMA policy": "mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages move_pages",
  "obsolete calls":
    "uselib ustat sysfs _sysctl nfsservctl getpmsg putpmsg afs_syscall tuxcall security vserver epoll_ctl_old epoll_wait_old get_thread_area set_thread_area remap_file_pages",
  "administration of security modules": "lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
} as const;

/** Of /usr/include: the tables of the two architectures. arm64 uses the generic one, so this works on either. */
export const headers = {
  x86_64: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
  generic: "/usr/include/asm-generic/unistd.h",
  version: "/usr/include/linux/version.h",
};

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET of linux/sched.h. */
const newNamespaceFlags = 0x7e020000;
/** AF_ALG of linux/socket.h; AF_VSOCK (40), AF_XDP (44) and whatever comes later are above it. */
const firstDeniedFamily = 38;
const ENOSYS = 38;
const EPERM = 1;

/** Allowed only with certain arguments: rules of the runtime specification's `linux.seccomp`. */
const restricted = [
  {
    // Threads and child processes, but no new namespace.
    names: ["clone"],
    action: "SCMP_ACT_ALLOW",
    args: [{ index: 0, value: newNamespaceFlags, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }],
  },
  {
    // Its flags are behind a pointer, where a filter cannot look; C libraries fall back to clone on ENOSYS only.
    names: ["clone3"],
    action: "SCMP_ACT_ERRNO",
    errnoRet: ENOSYS,
  },
  {
    // Asking for the personality and setting the ordinary one; others switch off address randomisation.
    names: ["personality"],
    action: "SCMP_ACT_ALLOW",
    args: [{ index: 0, value: 0, op: "SCMP_CMP_EQ" }],
  },
  {
    names: ["personality"],
    action: "SCMP_ACT_ALLOW",
    args: [{ index: 0, value: 0xffffffff, op: "SCMP_CMP_EQ" }],
  },
  {
    names: ["socket"],
    action: "SCMP_ACT_ALLOW",
    args: [{ index: 0, value: firstDeniedFamily, op: "SCMP_CMP_LT" }],
  },
];

/** The names that a header defines numbers for. */
function namesIn(headerText: string): string[] {
  return [...headerText.matchAll(/^#define __NR_(\w+)[ \t]+\S/gm)]
    .map(([, name]) => name!)
    .filter((name) => name !== "syscalls" && name !== "arch_specific_syscall");
}

/** The kernel version that linux/version.h is of, such as `6.1`. */
export function kernelOf(versionText: string): string {
  const part = (name: string) => new RegExp(`^#define LINUX_VERSION_${name} (\\d+)`, "m").exec(versionText)?.[1];
  return `${part("MAJOR")}.${part("PATCHLEVEL")}`;
}

/**
 * The profile's text. `architectures` is not in it: src/host/oci/spec.ts puts the machine's own there and no other,
 * so that a 32-bit program finds no second, less watched, table of calls.
 * A name that an architecture does not have is ignored by runc, hence one file for both. A call with a number above
 * all those of the profile gets ENOSYS from runc, so C libraries that are newer than these headers find their way.
 */
export function generate(x86_64: string, generic: string, version: string): string {
  const gone = new Set([
    ...Object.values(denied).flatMap((names) => names.split(" ")),
    ...restricted.flatMap((rule) => rule.names),
  ]);
  const known = [...new Set([...namesIn(x86_64), ...namesIn(generic)])];
  const profile = {
    generatedFrom: `Linux ${kernelOf(version)} headers by scripts/build-seccomp.ts`,
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: EPERM,
    syscalls: [{ names: known.filter((name) => !gone.has(name)).sort(), action: "SCMP_ACT_ALLOW" }, ...restricted],
  };
  return `${JSON.stringify(profile, null, 1)}\n`;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [x86_64, generic, version] = [headers.x86_64, headers.generic, headers.version].map((file) =>
    readFileSync(file, "utf8"),
  );
  const file = new URL("../src/host/oci/seccomp.json", import.meta.url);
  writeFileSync(file, generate(x86_64!, generic!, version!));
}
