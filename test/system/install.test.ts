/** Installing, upgrading, going back and uninstalling, below a folder and with a systemd that knows napd alone. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, readdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { webImage } from "../support/images.ts";
import { type Result, type TestMachine, testMachine } from "../support/machine.ts";
import { unpackedRelease, variantOf } from "../support/releases.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const run = promisify(execFile);

/** Where it is to serve, it brings the state to a newer schema and ends. */
const broken = (text: string) =>
  text.replace(
    "\n",
    `
if (!["install", "uninstall"].includes(process.argv[2])) {
  const { readFileSync } = await import("node:fs");
  const { DatabaseSync } = await import("node:sqlite");
  const data = /data = (.*)/.exec(readFileSync(process.argv[3], "utf8"))[1];
  new DatabaseSync(data + "/state.db").exec("DELETE FROM functions; PRAGMA user_version = 99");
  console.error("no good");
  process.exit(3);
}
`,
  );

suite("an installation", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  let machine: TestMachine;
  /** Folders of unpacked releases by version. */
  const releases: Record<string, string> = {};
  before(async () => {
    world = up.use(await openWorld());
    machine = await testMachine(join(world.dir, "m"), { ...world.settings, "images.pull_policy": "Never" });
    up.defer(async () => void (await machine.run("systemctl", ["stop", "napd.service"])));
    const first = await unpackedRelease(join(world.dir, "first"));
    await mkdir(place("disk/opt"), { recursive: true });
    await symlink("disk/opt", place("opt"));
    const socket = (text: string) => text.replace("0.0.0.0:8080", world.settings["gateway.listen"]!);
    const files = { "systemd/napd.socket": socket };
    for (const version of ["1.0.0", "1.1.0", "1.2.0"])
      releases[version] = await variantOf(first, join(world.dir, version), version, files);
    const newer = (text: string) => text.replace(/("schemas": \{\s*"state\.db": )(\d+)/, (_, a, n) => `${a}${+n + 1}`);
    releases.broken = await variantOf(first, join(world.dir, "broken"), "1.3.0", {
      ...files,
      "lib/napd.mjs": broken,
      "package.json": newer,
    });
    await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n");
  });
  after(() => up.disposeAsync());

  const place = (path: string) => join(machine.root, path);
  const install = (version: string, ...options: string[]): Promise<Result> =>
    machine.run(join(releases[version]!, "bin/napd"), ["install", "--root", machine.root, ...options]);
  const napd = (...args: string[]) => machine.run(place("usr/local/bin/napd"), args);
  const running = async () => JSON.parse((await world.api("GET", "/system/info")).text).version.release;
  const calls = async (fn: string) => (await world.call(`/function/${fn}`, { method: "POST", body: "abc" })).text;
  /** Processes of functions by container. */
  const processes = async () =>
    Array.from(
      (await world.ctr("tasks", "list")).matchAll(/^(\S+)\s+(\d+)\s+[A-Z]+\s*$/gm),
      ([, id, pid]) => `${id} ${pid}`,
    ).sort();
  const mounted = async (fn: string) => {
    const pid = (await processes()).find((line) => line.startsWith(`${fn}.`))!.split(" ")[1];
    return / \S*\/releases\/([^/ ]+)\/dist\/watchdog-\S+ /.exec(await readFile(`/proc/${pid}/mountinfo`, "utf8"))?.[1];
  };
  const succeeds = (result: Result) => assert.equal(result.code, 0, result.stdout + result.stderr);
  let deployed: string[];

  suite("on a machine that lacks something", () => {
    const nothing = { "network.plugins": "/nonexistent" };
    /** Fails, with a sentence, and has changed nothing. */
    const refuses = async (why: RegExp, ...options: string[]) => {
      const { code, stderr } = await install("1.0.0", ...options);
      assert.equal(code, 1);
      assert.match(stderr, why);
      assert.deepEqual(await readdir(machine.root), ["disk", "etc", "opt", "run", "stubs"]);
      assert.deepEqual(await readdir(place("opt")), []);
    };

    test("no way to the packages", async () => {
      await machine.configure(nothing);
      await machine.stub(
        "apt-get",
        '#!/bin/sh\necho "$*" >>"$ROOT/stubs/apt"\necho "E: Failed to fetch http://deb.example/x" >&2\nexit 100\n',
      );
      await refuses(
        /apt-get cannot install containernetworking-plugins: E: Failed to fetch http:\/\/deb\.example\/x; .*--packages FOLDER/,
      );
      const asked = await readFile(place("stubs/apt"), "utf8");
      assert.match(asked, /--no-install-recommends .*install containernetworking-plugins\n.* update\n.*install /);
    });

    test("packages as files", async () => {
      const folder = join(world.dir, "packages");
      await refuses(/packages cannot be read/, "--packages", folder);
      await mkdir(folder);
      await refuses(/has no \.deb files, and this machine lacks containernetworking-plugins/, "--packages", folder);
      await writeFile(join(folder, "a.deb"), "");
      await refuses(/packages of .* cannot be installed: E: /, "--packages", folder);
      await machine.stub("apt-get", "#!/bin/sh\n");
      await refuses(/containernetworking-plugins is missing still; put it into/, "--packages", folder);
    });

    test("settings that are wrong", async () => {
      await machine.configure({ "gateway.listen": "everywhere" });
      await refuses(/gateway\.listen/);
      await machine.configure();
    });

    test("room for the release", async () => {
      await run("mount", ["-t", "tmpfs", "-o", "size=80m", "tmpfs", place("opt")]);
      const { code, stderr } = await install("1.0.0");
      await run("umount", [place("opt")]);
      assert.equal(code, 1);
      assert.match(stderr, /opt\/napd\/releases has no room for the release, which takes [\d.]+ .iB; free some/);
    });
  });

  test("takes over from a napd that an older layout had installed, and its functions run on", async () => {
    await cp(releases["1.0.0"]!, place("opt/napd"), { recursive: true });
    await mkdir(place("etc/systemd/system"), { recursive: true });
    await writeFile(place("etc/systemd/system/napd.service"), "[Service]\nExecStart=/opt/napd/bin/napd\n");
    await mkdir(place("usr/local/bin"), { recursive: true });
    await symlink("/opt/napd/bin/napd", place("usr/local/bin/napd"));
    succeeds(await machine.run("systemctl", ["start", "napd.service"]));
    await eventually(
      () => world.call("/healthz").catch(() => undefined),
      (answer) => answer?.status === 200,
    );
    await world.import(`${world.dir}/web.tar`);
    const cat = { image: "web:1", envProcess: "cat" };
    const sleepy = { ...cat, labels: { "com.openfaas.scale.zero-duration": "1s" } };
    for (const [service, spec] of Object.entries({ awake: cat, sleepy }))
      assert.equal((await world.api("POST", "/system/functions", { service, ...spec })).status, 202);
    deployed = await processes();
    assert.equal(deployed.length, 2);

    await machine.asked();
    const enabling = "daemon-reload,enable napd.service,enable napd.socket";
    const orders = `${enabling},reset-failed napd.service,stop napd.service,restart napd.socket,restart napd.service`;
    succeeds(await machine.run("sh", [join(releases["1.0.0"]!, "install.sh"), "--root", machine.root]));
    assert.equal((await machine.asked()).join(), orders);
    assert.deepEqual(await processes(), deployed);
    assert.equal(await calls("awake"), "abc");
    assert.equal(await readlink(place("usr/local/bin/napd")), place("opt/napd/current/bin/napd"));
    assert.equal((await napd("--version")).stdout, "1.0.0\n");
    assert.match((await machine.run(place("usr/local/bin/nap"), ["--help"])).stdout, /invoke/);
  });

  test("is for root's eyes where it holds secrets", async () => {
    const modes: Record<string, number> = { "credentials/basic-auth-password": 0o600, credentials: 0o700, "": 0o700 };
    for (const [name, mode] of Object.entries(modes))
      assert.equal((await stat(join(world.paths.data, name))).mode & 0o777, mode, name);
  });

  test("done again changes nothing", async () => {
    await machine.asked();
    const pid = await machine.pid();
    const again = await install("1.0.0");
    succeeds(again);
    assert.match(again.stdout, /napd 1\.0\.0 runs already/);
    assert.match(again.stdout, /nap login -g \S+ --password-stdin < /);
    assert.equal(await machine.pid(), pid);
    assert.deepEqual(await machine.asked(), ["enable napd.service"]);
  });

  test("settings that somebody wrote stay", async () => {
    assert.match(await readFile(place("etc/napd/napd.ini"), "utf8"), /^pull_policy = Never$/m);
  });

  test("goes back by itself to what ran when a new release does not answer", async () => {
    const failed = await install("broken");
    assert.equal(failed.code, 1);
    assert.match(failed.stderr, /napd 1\.3\.0 is not healthy; .*; napd 1\.0\.0 runs again\n(.*\n)*? *no good/);
    assert.equal(await running(), "1.0.0");
    assert.deepEqual(await processes(), deployed);
    assert.equal((await napd("--version")).stdout, "1.0.0\n");
    assert.ok(!(await readdir(world.paths.data)).includes(".before-upgrade"));
  });

  test("upgrades, and functions that were started with the watchdog of an old release run on", async () => {
    await world.api("POST", "/system/functions", { service: "younger", image: "web:1", envProcess: "cat" });
    deployed = await processes();
    const old = await mounted("younger");
    for (const version of ["1.1.0", "1.2.0"]) {
      await machine.asked();
      succeeds(await install(version));
      const orders = ["enable napd.service", "reset-failed napd.service", "restart napd.service"];
      assert.deepEqual(await machine.asked(), orders, "the socket stays open");
      assert.equal(await running(), version);
    }
    assert.deepEqual(await processes(), deployed);
    for (const fn of ["awake", "sleepy", "younger"]) assert.equal(await calls(fn), "abc", fn);
    assert.equal(await mounted("younger"), old);
    assert.ok(
      (await readdir(place("opt/napd/releases"))).includes(old!),
      "a release that functions have mounted stays",
    );
  });

  test("a file that releases have in common takes its space once", async () => {
    const names = (await readdir(place("opt/napd/releases"))).filter((name) => /^1\.[12]\.0-/.test(name));
    const inodes = names.map(async (name) => (await stat(place(`opt/napd/releases/${name}/runtime/node`))).ino);
    assert.equal(new Set(await Promise.all(inodes)).size, 1);
  });

  test("goes back when it is told to", async () => {
    succeeds(await napd("install", "--rollback", "--root", machine.root));
    assert.equal(await running(), "1.1.0");
    assert.deepEqual(await processes(), deployed);
  });

  test("goes on where a run was cut off", async () => {
    const cut = machine.start(join(releases["1.2.0"]!, "bin/napd"), ["install", "--root", machine.root]);
    await eventually(
      async () => readlink(place("opt/napd/current")),
      (target) => /1\.2\.0-/.test(target),
    );
    cut.kill("SIGKILL");
    await mkdir(place("opt/napd/releases/.incoming-1.2.0-abc"));
    succeeds(await install("1.2.0"));
    assert.equal(await running(), "1.2.0");
    assert.deepEqual(
      (await readdir(place("opt/napd/releases"))).filter((name) => name.startsWith(".")),
      [],
    );
    assert.deepEqual(await processes(), deployed);
  });

  test("a function that is started anew has the watchdog of the release that runs, and old releases go", async () => {
    for (const fn of ["awake", "sleepy", "younger"])
      assert.equal((await world.api("DELETE", "/system/functions", { functionName: fn })).status, 202);
    await eventually(processes, (left) => left.length === 0);
    await world.api("POST", "/system/functions", { service: "younger", image: "web:1", envProcess: "cat" });
    succeeds(await install("1.2.0"));
    assert.match((await mounted("younger"))!, /^1\.2\.0-/);
    assert.deepEqual((await readdir(place("opt/napd/releases"))).map((name) => name.slice(0, 5)).sort(), [
      "1.1.0",
      "1.2.0",
    ]);
  });

  test("a napd that somebody started by hand is not killed", async () => {
    succeeds(await machine.run("systemctl", ["stop", "napd.service"]));
    await world.start();
    const refused = await install("1.2.0");
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /another napd runs .* stop it, then run this again/);
    await world.napd().stop();
    succeeds(await install("1.2.0"));
  });

  test("uninstalls and leaves the data, from which a new installation goes on", async () => {
    succeeds(await napd("uninstall", "--root", machine.root));
    assert.deepEqual(await left(), ["content", "image", "log", "snapshot"]);
    for (const path of ["opt/napd/releases", "usr/local/bin/napd", "etc/systemd/system/napd.service"])
      await assert.rejects(stat(place(path)), path);
    succeeds(await install("1.2.0"));
    assert.equal(await calls("younger"), "abc");
  });

  test("uninstalls with everything", async () => {
    const gone = await napd("uninstall", "--purge", "--root", machine.root);
    succeeds(gone);
    assert.match(gone.stdout, /packages of the distribution stay/);
    assert.deepEqual(await left(), []);
    for (const path of [...Object.values(world.paths), place("etc/napd")]) await assert.rejects(stat(path), path);
    assert.deepEqual(await readdir(place("etc/systemd/system")), []);
    await machine.configure();
    const again = await machine.run(join(releases["1.2.0"]!, "bin/napd"), [
      "uninstall",
      "--purge",
      "--root",
      machine.root,
    ]);
    succeeds(again);
    await rm(place("opt"), { recursive: true });
  });

  /** Kinds of what functions have on this machine. */
  async function left(): Promise<string[]> {
    return [...new Set((await world.traces()).map((trace) => trace.split(" ")[0]!))].sort();
  }
});
