import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { judge, type Level } from "../../../src/doctor/checks.ts";
import { type Facts, isAtLeast } from "../../../src/doctor/facts.ts";
import { report } from "../../../src/doctor/report.ts";

const gib = 2 ** 30;
/** A machine on which all is well. */
const good: Facts = {
  isRoot: true,
  kernel: "6.12.0-amd64",
  arch: "x64",
  trials: [{ what: "overlay file systems", remedy: "modprobe overlay", works: true }],
  cgroup: { version: 2, freezer: true, missing: [] },
  seccomp: true,
  bridgeNetfilter: undefined,
  forwarding: true,
  iptables: "iptables v1.8.9 (nf_tables)",
  neighbours: [],
  napdRuns: false,
  ports: [{ setting: "gateway.listen", address: "0.0.0.0:8080", failure: undefined }],
  dns: { configured: [], host: ["127.0.0.53", "192.0.2.1"], own: "10.63.0.1" },
  containerd: { socket: "/run/c.sock", version: "1.7.24" },
  runtimes: [{ name: "runc", version: "1.3.3" }],
  missingPlugins: [],
  pluginDirs: ["/usr/lib/cni"],
  certificate: undefined,
  units: undefined,
  bridge: "napd0",
  gatewayPort: 8080,
  disks: [{ path: "/var/lib/napd", freeBytes: 20 * gib, reserveBytes: gib / 4 }],
  now: Date.UTC(2026, 5, 1),
  timeSynchronized: true,
};
const disk = (freeBytes: number) => [{ path: "/var/lib/napd", freeBytes, reserveBytes: gib / 4 }];
const port = (failure: string) => [{ setting: "gateway.listen", address: "0.0.0.0:8080", failure }];
const runc = (version: string, ...cves: string[]) => ({
  runtimes: [
    {
      name: "runc" as const,
      version,
      ...(cves.length > 0 && { package: { name: "runc", version: `${version}-1`, cves } }),
    },
  ],
});
const unit = (active: string, file = "enabled") => ({ load: "loaded", active, sub: "x", file });
const none = { load: "not-found", active: "inactive", sub: "dead", file: "" };
const dayMs = 24 * 3_600_000;
const certificate = (days: number) => ({ certificate: { file: "/c.pem", validTo: good.now + days * dayMs } });

const rows: [check: string, change: Partial<Facts>, level: Level, says: RegExp][] = [
  ["root", { isRoot: false, trials: undefined }, "warning", /sudo/],
  ["abilities", { isRoot: false, trials: undefined }, "warning", /not tried/],
  [
    "abilities",
    { trials: [{ what: "veth pairs", remedy: "modprobe veth", works: false }] },
    "failure",
    /modprobe veth/,
  ],
  ["kernel", { kernel: "4.9.0" }, "failure", /5\.10/],
  ["kernel", { kernel: "5.4.0-generic" }, "warning", /old/],
  ["kernel", { arch: "riscv64" }, "failure", /riscv64/],
  ["cgroup", { cgroup: { version: 1, freezer: true, missing: [] } }, "ok", /v1/],
  ["cgroup", { cgroup: { version: 1, freezer: false, missing: [] } }, "failure", /freezer/],
  ["cgroup", { cgroup: { version: 2, freezer: false, missing: [] } }, "failure", /5\.2/],
  ["cgroup", { cgroup: { version: 2, freezer: true, missing: ["memory"] } }, "warning", /cgroup_enable=memory/],
  ["cgroup", { cgroup: { version: 0, freezer: false, missing: [] } }, "failure", /mount/],
  ["seccomp", { seccomp: false }, "failure", /CONFIG_SECCOMP_FILTER/],
  ["forwarding", { forwarding: false }, "ok", /turns it on/],
  ["br_netfilter", { bridgeNetfilter: true }, "ok", /loaded, on/],
  ["iptables", { iptables: undefined }, "failure", /install/],
  ["neighbours", { neighbours: ["docker"] }, "ok", /Docker/],
  ["neighbours", { neighbours: ["ufw", "docker"] }, "warning", /ufw is active.*ufw route allow in on napd0/s],
  ["neighbours", { neighbours: ["firewalld"] }, "warning", /--add-port=8080\/tcp.*--add-interface=napd0/s],
  ["ports", { ports: port("EADDRINUSE") }, "failure", /taken.*gateway\.listen/s],
  ["ports", { ports: port("EADDRINUSE"), napdRuns: true }, "ok", /runs/],
  ["ports", { ports: port("EADDRNOTAVAIL"), napdRuns: true }, "failure", /no such address/],
  ["ports", { ports: port("EADDRINUSE"), units: { service: none, socket: unit("active") } }, "ok", /napd\.socket/],
  ["ports", { ports: port("EADDRINUSE"), units: { service: none, socket: none } }, "failure", /taken/],
  ["dns", { dns: { configured: [], host: ["10.63.0.1"], own: "10.63.0.1" } }, "failure", /circle/],
  ["dns", { dns: { configured: ["10.63.0.1"], host: [], own: "10.63.0.1" } }, "failure", /dns\.servers/],
  ["dns", { dns: { configured: [], host: ["127.0.0.1"], own: "10.63.0.1" } }, "warning", /dns\.servers/],
  ["dns", { dns: { configured: ["192.0.2.9"], host: ["10.63.0.1"], own: "10.63.0.1" } }, "ok", /192\.0\.2\.9/],
  ["containerd", { containerd: { socket: "/s", failure: "containerd does not answer on /s" } }, "failure", /\/s/],
  ["containerd", { containerd: { socket: "/s", version: "1.4.13~ds1" } }, "failure", /1\.6/],
  ["containerd", { containerd: { socket: "/s", version: "v2.1.5" } }, "ok", /2\.1\.5/],
  ["runtime", { runtimes: [] }, "failure", /neither/],
  ["runtime", { runtimes: [{ name: "crun", version: "1.8.1" }] }, "ok", /crun 1\.8\.1/],
  [
    "runtime",
    runc("1.1.5+ds1"),
    "warning",
    /CVE-2024-21626, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881.*1\.1\.12/s,
  ],
  ["runtime", runc("1.1.5+ds1", "CVE-2024-21626"), "warning", /\(package 1\.1\.5\+ds1-1\) leaves CVE-2025-31133/],
  ["runtime", runc("1.1.15", "CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"), "ok", /1\.1\.15/],
  ["runtime", runc("1.1.15", "CVE-2025-31133"), "warning", /leaves CVE-2025-52565, CVE-2025-52881 open/],
  ["runtime", runc("1.1.12"), "warning", /leaves CVE-2025-31133/],
  ["runtime", runc("1.2.7"), "warning", /1\.2\.8/],
  ["runtime", runc("1.2.8"), "ok", /1\.2\.8/],
  ["runtime", runc("1.3.2"), "warning", /1\.3\.3/],
  ["runtime", runc("1.4.0-rc.2"), "warning", /rc\.3/],
  ["runtime", runc("1.4.0-rc.3"), "ok", /rc\.3/],
  ["runtime", runc("1.4.0"), "ok", /1\.4\.0/],
  ["runtime", runc("1.5.0-rc.1"), "ok", /1\.5\.0/],
  ["runtime", runc("1.4.0~rc2"), "warning", /rc\.3/],
  ["cni", { missingPlugins: ["host-local"] }, "failure", /host-local missing/],
  ["disk", { disks: disk(gib / 8) }, "failure", /disk_reserve/],
  ["disk", { disks: disk(gib) }, "warning", /free/],
  ["time", { now: 0 }, "failure", /1970/],
  ["time", { timeSynchronized: false }, "warning", /set-ntp/],
  ["time", { timeSynchronized: undefined }, "ok", /2026/],
  ["certificate", certificate(60), "ok", /valid until 2026/],
  ["certificate", certificate(3), "warning", /3 days/],
  ["certificate", certificate(-1), "failure", /renew/],
  ["certificate", { certificate: { file: "/c.pem", failure: "no such file" } }, "failure", /no such file/],
  ["service", { units: { service: unit("active"), socket: unit("active") } }, "ok", /active, with napd\.socket/],
  ["service", { units: { service: unit("failed"), socket: none } }, "failure", /journalctl -u napd/],
  ["service", { units: { service: unit("active", "disabled"), socket: none } }, "warning", /enable napd/],
  ["service", { units: { service: none, socket: none } }, "warning", /napd install/],
  ["service", { units: { service: none, socket: none }, napdRuns: true }, "ok", /without a unit/],
];

suite("the doctor's checks", () => {
  test("a good machine has nothing but OK", () => {
    for (const finding of judge(good)) assert.equal(finding.level, "ok", JSON.stringify(finding));
  });

  for (const [check, change, level, says] of rows)
    test(`${check}: ${JSON.stringify(change)} is ${level}`, () => {
      const finding = judge({ ...good, ...change }).find((f) => f.check === check)!;
      assert.equal(finding.level, level, JSON.stringify(finding));
      assert.match(`${finding.message}\n${finding.remedy}`, says);
      assert.equal(finding.remedy === "", level === "ok", "a remedy goes with every complaint, and with nothing else");
    });

  test("the order of the checks and their names stay, whatever they find", () => {
    const names = (facts: Facts) => judge(facts).map(({ check }) => check);
    assert.deepEqual(names({ ...good, trials: undefined, runtimes: [], disks: [] }), names(good));
  });
});

suite("the doctor's report", () => {
  const bad = judge({ ...good, seccomp: false });

  test("only failures make it not ok", () => {
    assert.equal(report(judge(good), false).ok, true);
    assert.equal(report(judge({ ...good, timeSynchronized: false }), false).ok, true);
    assert.equal(report(bad, false).ok, false);
  });

  test("a line a check in columns, the remedy below", () => {
    const lines = report(bad, false).text.split("\n");
    assert.ok(lines.includes("FAILURE  seccomp       the kernel has no seccomp filters"), lines.join("\n"));
    assert.ok(lines.includes(`${" ".repeat(23)}→ use a kernel with CONFIG_SECCOMP_FILTER`), lines.join("\n"));
  });

  test("JSON has ok and every check with its four fields", () => {
    const { ok, checks } = JSON.parse(report(bad, true).text);
    assert.equal(ok, false);
    assert.deepEqual(checks, bad);
    for (const check of checks) assert.deepEqual(Object.keys(check), ["check", "level", "message", "remedy"]);
  });
});

suite("versions", () => {
  const table: [string, number[], boolean][] = [
    ["5.10.0-8", [5, 10], true],
    ["5.9", [5, 10], false],
    ["v2.0.0", [1, 6], true],
    ["1.6", [1, 6, 0], true],
    ["unknown", [1], false],
  ];
  for (const [version, least, is] of table)
    test(`${version} ${is ? "is" : "is not"} at least ${least.join(".")}`, () =>
      assert.equal(isAtLeast(version, least), is));
});
