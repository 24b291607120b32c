import assert from "node:assert/strict";
import { join } from "node:path";
import { suite, test } from "node:test";
import { isAppError } from "../../../../src/base/errors.ts";
import { minMemoryBytes, runtimeSpec, type SpecInput } from "../../../../src/host/oci/spec.ts";

const base: SpecInput = {
  image: { entrypoint: ["fwatchdog"], user: { uid: 100, gid: 101, additionalGids: [101], home: "/home/app" } },
  hostname: "figlet-1",
  env: {},
  netns: "/run/netns/figlet-1",
  cgroupsPath: "/openfaas-fn/figlet-1",
  limits: { pids: 128 },
  readOnlyRoot: false,
  mounts: { resolvConf: "/run/napd/resolv.conf", hosts: "/run/napd/hosts" },
};
const image = (change: Partial<SpecInput["image"]>) => ({ ...base, image: { ...base.image, ...change } });
const destinations = (input: SpecInput) => runtimeSpec(input).mounts.map((mount) => mount.destination);
const isUnusable = (e: unknown) => isAppError(e, "IMAGE_UNUSABLE");

suite("runtime spec", () => {
  test("a function with everything, as a whole", (t) => {
    const spec = runtimeSpec({
      ...base,
      image: { ...base.image, cmd: ["--port", "8080"], env: ["PATH=/app", "a=1"], workingDir: "/app/src/../dist" },
      env: { fprocess: "figlet -f big", a: "2" },
      limits: { memoryBytes: 128 * 2 ** 20, cpus: 0.25, pids: 64 },
      readOnlyRoot: true,
      mounts: { ...base.mounts, secretsDir: "/var/lib/napd/mounts/figlet-1" },
      extraMounts: [{ source: "/opt/napd/watchdog", destination: "/opt/napd/watchdog" }],
    });
    const { syscalls, architectures, ...seccomp } = spec.linux.seccomp; // see seccomp.test.ts
    assert.equal(architectures.length, 1);
    assert.ok(syscalls.length > 0);
    t.assert.fileSnapshot({ ...spec, linux: { ...spec.linux, seccomp } }, join(import.meta.dirname, "spec.golden.txt"));
  });

  test("it is JSON and nothing is undefined in it", () => {
    const spec = runtimeSpec(base);
    assert.deepEqual(JSON.parse(JSON.stringify(spec)), spec);
  });

  test("no capability in any set, no new privileges, no devices", () => {
    const { process, linux } = runtimeSpec(base);
    assert.deepEqual(Object.values(process.capabilities).flat(), []);
    assert.equal(process.noNewPrivileges, true);
    assert.deepEqual(linux.resources.devices, [{ allow: false, access: "rwm" }]);
  });

  test("limits that are not asked for are not set", () => {
    assert.deepEqual(Object.keys(runtimeSpec(base).linux.resources), ["devices", "pids"]);
  });
});

suite("limits", () => {
  const resources = (limits: SpecInput["limits"]) => runtimeSpec({ ...base, limits }).linux.resources;
  test("no swap beside the memory", () => {
    assert.deepEqual(resources({ memoryBytes: 2 ** 30, pids: 1 }).memory, { limit: 2 ** 30, swap: 2 ** 30 });
  });
  test("memory that runc could not start in is raised", () => {
    assert.equal(resources({ memoryBytes: 2 ** 20, pids: 1 }).memory?.limit, minMemoryBytes);
  });
  test("one core and a half", () => {
    assert.deepEqual(resources({ cpus: 1.5, pids: 1 }).cpu, { quota: 150_000, period: 100_000, shares: 1536 });
  });
  test("hardly any core is still what the kernel takes", () => {
    assert.deepEqual(resources({ cpus: 0.001, pids: 1 }).cpu, { quota: 1000, period: 100_000, shares: 2 });
  });
});

suite("what runs", () => {
  test("entrypoint, then cmd", () => {
    assert.deepEqual(runtimeSpec(image({ entrypoint: ["a", "b"], cmd: ["c"] })).process.args, ["a", "b", "c"]);
  });
  test("args stand for both", () => {
    assert.deepEqual(runtimeSpec({ ...image({ cmd: ["c"] }), args: ["x"] }).process.args, ["x"]);
  });
  test("an image with neither is refused", () => {
    assert.throws(() => runtimeSpec(image({ entrypoint: [], cmd: [] })), isUnusable);
  });
});

suite("environment", () => {
  const env = (image_: string[], own: Record<string, string>) =>
    runtimeSpec({ ...image({ env: image_ }), env: own }).process.env;
  test("the function's own wins by key, and a value may have any number of =", () => {
    const got = env(["A=1=2", "B=x", "EMPTY="], { B: "y=z=", C: "" });
    assert.deepEqual(got.slice(2), ["A=1=2", "B=y=z=", "EMPTY=", "C="]);
  });
  test("PATH and HOME are there when the image has none", () => {
    assert.deepEqual(env([], {}), [
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      "HOME=/home/app",
    ]);
  });
  test("and are the image's when it has", () => {
    assert.deepEqual(env(["PATH=/p", "HOME=/h"], {}), ["PATH=/p", "HOME=/h"]);
  });
});

suite("working directory", () => {
  const cwd = (workingDir?: string) =>
    runtimeSpec(image({ ...(workingDir !== undefined && { workingDir }) })).process.cwd;
  for (const [given, expected] of [
    [undefined, "/"],
    ["", "/"],
    ["/app", "/app"],
    ["app", "/app"],
    ["/a//b/./c/", "/a/b/c"],
    ["/process", "/process"],
    ["/proc/self/fd/7/../../../..", "/"],
    ["/app/proc/self/fd/7", "/app/proc/self/fd/7"],
  ] as const)
    test(`${given} is ${expected}`, () => assert.equal(cwd(given), expected));

  for (const bad of [
    "/proc/self/fd/7",
    "/proc",
    "//proc//self/fd/8",
    "/app/../proc/self/fd/9",
    "proc/self/fd/7",
    "/dev/fd/7",
    "/sys/fs",
    "/a\0b",
  ])
    test(`${JSON.stringify(bad)} is refused`, () => assert.throws(() => cwd(bad), isUnusable));
});

suite("mounts", () => {
  test("/tmp is a tmpfs when the root is read-only, and the image's own when not", () => {
    assert.ok(destinations({ ...base, readOnlyRoot: true }).includes("/tmp"));
    assert.ok(!destinations(base).includes("/tmp"));
  });
  test("/dev/shm is always there", () => assert.ok(destinations(base).includes("/dev/shm")));
  test("secrets only when there are some", () => assert.ok(!destinations(base).includes("/var/openfaas/secrets")));
  test("an extra mount is read-only unless it says otherwise", () => {
    const extra = (readOnly?: boolean) =>
      runtimeSpec({
        ...base,
        extraMounts: [{ source: "/s", destination: "/d", ...(readOnly !== undefined && { readOnly }) }],
      }).mounts.at(-1)!.options;
    assert.ok(extra().includes("ro"));
    assert.ok(extra(false).includes("rw"));
  });
  test("no host path but the ones given is bound", () => {
    const sources = runtimeSpec(base)
      .mounts.filter((mount) => mount.type === "bind")
      .map((mount) => mount.source);
    assert.deepEqual(sources, ["/run/napd/resolv.conf", "/run/napd/hosts"]);
  });
});
