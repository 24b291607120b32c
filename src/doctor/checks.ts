import { formatBytes } from "../base/quantities.ts";
import { type Facts, isAtLeast } from "./facts.ts";
import { openHoles } from "./runc.ts";

export type Level = "ok" | "warning" | "failure";

/** What one check says. */
export interface Finding {
  /** What was looked at; the same from run to run. */
  readonly check: string;
  readonly level: Level;
  readonly message: string;
  /** What to do about it; empty when it is fine. */
  readonly remedy: string;
}

type Verdict = Omit<Finding, "check">;

const ok = (message: string): Verdict => ({ level: "ok", message, remedy: "" });
const warning = (message: string, remedy: string): Verdict => ({ level: "warning", message, remedy });
const failure = (message: string, remedy: string): Verdict => ({ level: "failure", message, remedy });

/** Before this moment no napd was made: such a clock is wrong. */
const earliest = Date.UTC(2026, 0, 1);

const dayMs = 24 * 3_600_000;
/** Certificates are usually renewed thirty days before their end: what is left at fewer days has been forgotten. */
const soonDays = 14;

/** Every check: a judgement over facts, nothing else. */
const checks: Readonly<Record<string, (facts: Facts) => Verdict>> = {
  root: ({ isRoot }) =>
    isRoot ? ok("runs as root") : warning("not root: what the kernel can do was not tried", "run it with sudo"),

  kernel({ kernel, arch }) {
    if (arch !== "x64" && arch !== "arm64") return failure(`${arch} is not supported`, "use x86_64 or arm64");
    if (!isAtLeast(kernel, [4, 18])) return failure(`Linux ${kernel}`, "use Linux 5.10 or newer");
    return isAtLeast(kernel, [5, 10])
      ? ok(`Linux ${kernel} on ${arch}`)
      : warning(`Linux ${kernel} is old`, "use 5.10 or newer");
  },

  abilities({ trials }) {
    if (trials === undefined) return warning("not tried", "run it with sudo");
    const lacking = trials.filter(({ works }) => !works);
    if (lacking.length === 0) return ok(trials.map(({ what }) => what).join(", "));
    return failure(
      `this machine lacks ${lacking.map(({ what }) => what).join(", ")}`,
      lacking.map(({ remedy }) => remedy).join("; "),
    );
  },

  cgroup({ cgroup: { version, freezer, missing } }) {
    if (version === 0) return failure("no control groups", "mount them: mount -t cgroup2 none /sys/fs/cgroup");
    if (!freezer)
      return failure(
        `cgroup v${version} without a freezer`,
        version === 2 ? "use Linux 5.2 or newer" : "mount the freezer controller",
      );
    if (missing.length > 0)
      return warning(
        `cgroup v${version} without ${missing.join(", ")}: such limits will not hold`,
        "enable them on the kernel's command line, such as cgroup_enable=memory on a Raspberry Pi",
      );
    return ok(`v${version}, with freezer`);
  },

  seccomp: ({ seccomp }) =>
    seccomp
      ? ok("the kernel filters system calls")
      : failure("the kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER"),

  forwarding: ({ forwarding }) =>
    ok(forwarding ? "IPv4 forwarding is on" : "IPv4 forwarding is off; napd turns it on when it starts"),

  br_netfilter: ({ bridgeNetfilter }) =>
    ok(
      bridgeNetfilter === undefined
        ? "not loaded; napd does not need it"
        : `loaded, ${bridgeNetfilter ? "on" : "off"}; napd works with both`,
    ),

  iptables: ({ iptables }) =>
    iptables === undefined
      ? failure("iptables is missing", "install the package iptables; its nft variant is fine")
      : ok(iptables),

  neighbours({ neighbours, bridge, gatewayPort }) {
    if (neighbours.length === 0) return ok("no ufw, firewalld or Docker");
    const remedies = {
      ufw: `ufw allow ${gatewayPort}/tcp; ufw allow in on ${bridge}; ufw route allow in on ${bridge}`,
      firewalld: `firewall-cmd --permanent --add-port=${gatewayPort}/tcp; firewall-cmd --permanent --zone=trusted --add-interface=${bridge}; firewall-cmd --reload`,
    };
    const strict = neighbours.filter((name) => name !== "docker");
    if (strict.length === 0) return ok("Docker is here; its rules and napd's do not touch each other");
    return warning(
      `${strict.join(" and ")} ${strict.length > 1 ? "are" : "is"} active and may drop what comes in for the gateway, and what functions ask for`,
      strict.map((name) => remedies[name]).join("; "),
    );
  },

  ports({ ports, napdRuns, units }) {
    const bad = ports.filter(({ failure }) => failure !== undefined);
    const inUse = bad.length > 0 && bad.every(({ failure }) => failure === "EADDRINUSE");
    if (napdRuns && (inUse || bad.length === 0)) return ok("in use by the napd that runs");
    const isHeld = units?.socket.active === "active";
    if (inUse && isHeld && bad.every(({ setting }) => setting !== "metrics.listen"))
      return ok("held by napd.socket for napd");
    if (bad.length === 0) return ok(ports.map(({ address }) => address).join(", "));
    return failure(
      bad.map(({ setting, address, failure }) => `${address} (${setting}): ${portFailure(failure!)}`).join("; "),
      `end what holds it (ss -ltnp shows it), or change ${bad.map(({ setting }) => setting).join(" and ")}`,
    );
  },

  dns({ dns: { configured, host, own } }) {
    const [servers, where] =
      configured.length > 0 ? [configured, "setting dns.servers"] : [host, "the host's resolv.conf"];
    if (servers.includes(own))
      return failure(
        `${where} names ${own}, napd's own server: names would be looked up in a circle`,
        "name the real resolvers in setting dns.servers",
      );
    if (configured.length > 0) return ok(configured.join(", "));
    const usable = host.filter((server) => !/^(127\.|::1$|0\.0\.0\.0$|::$)/.test(server));
    return usable.length > 0
      ? ok(usable.join(", "))
      : warning("the host names no resolver but itself: functions cannot look up outside names", "set dns.servers");
  },

  containerd({ containerd: { socket, version, failure: why } }) {
    if (version === undefined)
      return failure(why ?? `no answer on ${socket}`, "install the package containerd, and start it");
    if (!isAtLeast(version, [1, 6])) return failure(`containerd ${version} is too old`, "use 1.6 or newer");
    return ok(`${version} on ${socket}`);
  },

  runtime({ runtimes }) {
    if (runtimes.length === 0) return failure("neither runc nor crun is here", "install the package runc");
    const runc = runtimes.find(({ name }) => name === "runc");
    const open = runc ? openHoles(runc) : [];
    if (runc && open.length > 0) {
      const from = runc.package ? ` (package ${runc.package.version})` : "";
      return warning(
        `runc ${runc.version}${from} leaves ${open.flatMap(({ cves }) => cves).join(", ")} open, which let a function out of its container`,
        `update it: ${open.map(({ fixedIn }) => fixedIn.join(", ")).join("; ")} and newer are closed, and so is a package whose changelog names them`,
      );
    }
    return ok(runtimes.map(({ name, version }) => `${name} ${version}`).join(", "));
  },

  cni: ({ missingPlugins, pluginDirs }) =>
    missingPlugins.length === 0
      ? ok("bridge and host-local")
      : failure(
          `${missingPlugins.join(" and ")} missing in ${pluginDirs.join(", ")}`,
          "install the package containernetworking-plugins, or name their directory with setting network.plugins",
        ),

  disk({ disks }) {
    const full = disks.filter(({ freeBytes, reserveBytes }) => freeBytes < reserveBytes);
    const tight = disks.filter(({ freeBytes, reserveBytes }) => freeBytes < reserveBytes + 2 ** 30);
    const say = (list: typeof disks) =>
      list.map(({ path, freeBytes }) => `${formatBytes(freeBytes)} free at ${path}`).join(", ");
    if (full.length > 0) return failure(say(full), "free some: deploys are refused below images.disk_reserve");
    return tight.length > 0 ? warning(say(tight), "free some before it gets tight") : ok(say(disks));
  },

  time({ now, timeSynchronized }) {
    const date = new Date(now).toISOString();
    if (now < earliest)
      return failure(`the clock says ${date}: certificates of registries will not be trusted`, "set the clock");
    if (timeSynchronized === false) return warning(`${date}, not synchronized`, "timedatectl set-ntp true");
    return ok(timeSynchronized ? `${date}, synchronized` : date);
  },

  certificate({ certificate, now }) {
    if (certificate === undefined) return ok("tls.certificate is not set");
    const { file, validTo, failure: why } = certificate;
    if (validTo === undefined)
      return failure(`${file}: ${why}`, "name a certificate in PEM format with tls.certificate");
    const days = Math.floor((validTo - now) / dayMs);
    const until = `${file}: valid until ${new Date(validTo).toISOString()}`;
    if (days < 0) return failure(until, "renew it; napd reads the file anew when it changes");
    return days < soonDays
      ? warning(`${until}, ${days} days`, "renew it; napd reads the file anew when it changes")
      : ok(until);
  },

  service({ units, napdRuns }) {
    if (units === undefined) return ok("no systemd here");
    const { service, socket } = units;
    if (service.load !== "loaded")
      return napdRuns
        ? ok("napd runs without a unit")
        : warning("napd.service is not there", "install it: napd install");
    if (service.active === "failed")
      return failure(
        `napd.service has failed (${service.sub})`,
        "journalctl -u napd -e says why; then systemctl start napd",
      );
    if (service.file === "disabled")
      return warning(`napd.service is ${service.active}, and not started at boot`, "systemctl enable napd");
    return ok(`napd.service is ${service.active}${socket.active === "active" ? ", with napd.socket" : ""}`);
  },
};

/** One finding for each check, always all of them and in the same order. */
export function judge(facts: Facts): Finding[] {
  return Object.entries(checks).map(([check, look]) => ({ check, ...look(facts) }));
}

function portFailure(code: string): string {
  if (code === "EADDRINUSE") return "taken by another program";
  if (code === "EADDRNOTAVAIL") return "no such address on this machine";
  return code === "EACCES" ? "not allowed without root" : code;
}
