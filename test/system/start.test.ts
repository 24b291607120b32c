/** The two commands as a newcomer has them: `npm start` until Ctrl-C, twice, and once more after a reboot. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { resolve } from "node:path";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { unmountUnder } from "../../scripts/private-containerd.ts";
import { freePort } from "../support/free-port.ts";
import { processesNaming } from "../support/processes.ts";
import { type TmpDir, tmpDir } from "../support/tmp.ts";
import { eventually } from "../support/world.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const bridge = "ntstart";

interface Started {
  readonly out: () => string;
  readonly code: Promise<number | null>;
  /** To all of its processes, unless it has ended. */
  signal(name: NodeJS.Signals): unknown;
}

suite("npm start", () => {
  let tmp: TmpDir;
  let port: number;
  const all: Started[] = [];
  before(async () => {
    tmp = await tmpDir();
    port = await freePort();
  });
  after(async () => {
    for (const started of all) started.signal("SIGINT"); // those that a failed test left: they clean up after themselves
    await Promise.all(all.map((started) => started.code));
    await tmp[Symbol.asyncDispose]();
  });

  function start(...settings: string[]): Started {
    const given = [
      `gateway.listen=0.0.0.0:${port}`,
      `network.bridge=${bridge}`,
      "network.subnet=10.251.7.0/24",
      "cgroup.parent=ntstart",
      ...settings,
    ];
    const args = given.flatMap((setting) => ["--set", setting]);
    const env = {
      ...process.env,
      NAPD_START_DATA: `${tmp.path}/data`,
      NAPD_START_RUN: `${tmp.path}/r`,
      NAPD_CONTAINERD_SOCKET: `${tmp.path}/none.sock`,
    };
    // a group of its own, as a terminal gives: Ctrl-C reaches npm, the shell and the script at once
    const child = spawn("npm", ["start", "--", ...args], {
      cwd: root,
      env,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => (out += text));
    const started: Started = {
      out: () => out,
      code: once(child, "close").then(([code]) => code as number | null),
      signal: (name) => child.exitCode === null && process.kill(-child.pid!, name),
    };
    all.push(started);
    return started;
  }

  /** Runs the two curl lines that were printed, just as they stand there. */
  async function runPrinted(started: Started): Promise<void> {
    const lines = () =>
      started
        .out()
        .split("\n")
        .map((l) => l.trim())
        .filter((l) => l.startsWith("curl "));
    let ended = false;
    void started.code.then(() => {
      ended = true;
    });
    const [call, list] = (await eventually(
      async () => lines(),
      (found) => found.length === 2 || ended,
      120_000,
    )) as [string, string];
    assert.ok(call && list, started.out());
    assert.match((await run("sh", ["-c", `${call} -s`])).stdout, /^Hello, Ada! .* container hello\.$/m);
    assert.equal(JSON.parse((await run("sh", ["-c", `${list} -s`])).stdout)[0].name, "hello");
  }

  async function interrupted(started: Started): Promise<void> {
    started.signal("SIGINT");
    assert.equal(await started.code, 0, started.out());
    // nothing is left but the data directory
    assert.deepEqual(await readdir(tmp.path), ["data"]);
    assert.equal((await run("ip", ["-o", "link"])).stdout.includes(bridge), false);
    assert.equal((await run("ip", ["netns", "list"])).stdout.includes(bridge), false);
    assert.equal((await run("iptables-save", [])).stdout.includes(bridge), false);
    assert.deepEqual(
      (await readdir("/sys/fs/cgroup")).filter((tree) => existsSync(`/sys/fs/cgroup/${tree}/ntstart`)),
      [],
    );
    assert.deepEqual(processesNaming(tmp.path), []);
  }

  test("sets everything up, prints lines that work, and Ctrl-C leaves only the data directory", async () => {
    const started = start();
    await runPrinted(started);
    await interrupted(started);
  });

  test("a second start finds the function again", async () => {
    const started = start();
    await runPrinted(started);
    assert.doesNotMatch(started.out(), /making the sample image/);
    await interrupted(started);
  });

  test("after a crash of everything and a /run that was wiped, it starts and serves again", async () => {
    const started = start();
    await runPrinted(started);
    await killAll(async () => processesNaming(tmp.path).map(({ pid }) => pid));
    await started.code;
    await killAll(inContainers); // whom no command line gives away
    for (const name of (await readdir("/run/netns")).filter((n) => n.startsWith(`${bridge}.`)))
      await run("ip", ["netns", "delete", name]);
    await run("ip", ["link", "delete", bridge]);
    await unmountUnder(`${tmp.path}/r`);
    await rm(`${tmp.path}/r`, { recursive: true, force: true });
    const again = start();
    await runPrinted(again);
    await interrupted(again);
  });

  test("a port in use, and settings that are none, are one clear line and a failure", async () => {
    const squatter = createServer().listen(port, "0.0.0.0");
    await once(squatter, "listening");
    const blocked = start();
    assert.notEqual(await blocked.code, 0);
    assert.match(
      blocked.out(),
      new RegExp(
        `^napd: cannot listen on 0\\.0\\.0\\.0:${port}: the port is in use; free it or change setting gateway\\.listen$`,
        "m",
      ),
    );
    squatter.close();
    const wrong = start("gateway.lisen=1");
    assert.notEqual(await wrong.code, 0);
    assert.match(
      wrong.out(),
      /^napd: --set gateway\.lisen: there is no setting gateway\.lisen; napd --print-config lists them all$/m,
    );
  });

  test("no containerd on the socket is one clear line and a failure", async () => {
    const napd = execFile(process.execPath, [
      `${root}/src/main.ts`,
      "--set",
      `containerd.socket=${tmp.path}/none.sock`,
      "--set",
      `paths.data=${tmp.path}/x/data`,
      "--set",
      `paths.run=${tmp.path}/x/run`,
      "--set",
      `gateway.listen=127.0.0.1:${port}`,
    ]);
    let err = "";
    napd.stderr!.on("data", (text) => (err += text));
    const [code] = await once(napd, "close");
    assert.equal(code, 1);
    assert.equal(
      err,
      `napd: containerd does not answer on ${tmp.path}/none.sock; start it, or name its socket with setting containerd.socket\n`,
    );
  });
});

/** As a power cut does: until nobody is left. */
async function killAll(who: () => Promise<number[]>): Promise<void> {
  await eventually(who, (pids) => {
    for (const pid of pids) kill(pid);
    return pids.length === 0;
  });
}

async function inContainers(): Promise<number[]> {
  const { stdout } = await run("sh", ["-c", "cat /sys/fs/cgroup/pids/ntstart/*/*/cgroup.procs 2>/dev/null || true"]);
  return stdout.split("\n").filter(Boolean).map(Number);
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // ended by itself
  }
}
