/**
 * The arm64 watchdog on an emulated processor (qemu-user) with Debian's C library for arm64. Shows that the program, its
 * bytecode, its foreign calls and its processes work there; it says nothing about speed. On an arm64 machine the other
 * tests run the program itself.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, readFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { debianSysroot } from "../../scripts/c-library.ts";
import { startChild, waitReady } from "../../scripts/child.ts";
import { freePort } from "../support/free-port.ts";
import { type TmpDir, tmpDir } from "../support/tmp.ts";

const run = promisify(execFile);
const root = `${import.meta.dirname}/../..`;
const qemu = "qemu-aarch64-static";

suite("the arm64 watchdog, emulated", { skip: process.arch === "arm64" && "this is an arm64 machine" }, () => {
  const up = new AsyncDisposableStack();
  let dir: TmpDir;
  /** Program and arguments of each way to start it. */
  let ways: Record<"plain" | "self-contained", string[]>;

  before(async () => {
    await run(process.execPath, [`${root}/scripts/build-watchdog.ts`, "--all"]);
    dir = up.use(await tmpDir());
    const folder = `${root}/dist/watchdog-linux-arm64`;
    await mkdir(`${dir.path}/root/opt/napd`, { recursive: true });
    await cp(folder, `${dir.path}/root/opt/napd/watchdog`, { recursive: true });
    ways = {
      plain: ["-L", debianSysroot("arm64"), `${root}/dist/fwatchdog-linux-arm64`],
      // nothing but the folder is where the program looks for its loader and libraries
      "self-contained": ["-L", `${dir.path}/root`, `${folder}/fwatchdog`],
    };
  });
  after(() => up.disposeAsync());

  /** A running watchdog whose function answers. */
  async function started(way: keyof typeof ways, env: Record<string, string>) {
    const port = await freePort();
    const logFile = `${dir.path}/log-${port}`;
    const child = await startChild(qemu, ways[way], {
      logFile,
      env: { PATH: process.env.PATH, TMPDIR: dir.path, port: String(port), suppress_lock: "true", ...env },
    });
    const url = `http://127.0.0.1:${port}`;
    const up = async () => (await fetch(`${url}/_/health`).catch(() => null))?.status === 200;
    await waitReady(child, up, { what: "the watchdog", timeoutMs: 60_000, logFile });
    return {
      url,
      log: () => readFile(logFile, "utf8"),
      stop: () => child.stop(),
      [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
    };
  }

  for (const way of ["plain", "self-contained"] as const) {
    test(`${way}: says its version`, async () => {
      const { version } = JSON.parse(await readFile(`${root}/package.json`, "utf8"));
      const { stderr } = await run(qemu, [...ways[way], "--version"]);
      assert.ok(stderr.includes(`Version: ${version}`), stderr);
    });

    test(`${way}: a process per request, small and large bodies, exit codes, timeouts`, async () => {
      await using watchdog = await started(way, { fprocess: "cat", exec_timeout: "20s" });
      for (const size of [0, 13, 1_000_000]) {
        const body = Buffer.alloc(size, 120);
        const answer = await fetch(watchdog.url, { method: "POST", body });
        assert.equal(answer.status, 200);
        assert.deepEqual(Buffer.from(await answer.arrayBuffer()), body);
      }
      assert.equal((await watchdog.stop()).code, 0);
    });

    test(`${way}: a function with its own server`, async () => {
      const upstream = await freePort();
      const server = `require("http").createServer((q, s) => q.pipe(s)).listen(${upstream}, "127.0.0.1")`;
      await using watchdog = await started(way, {
        mode: "http",
        fprocess: `${process.execPath} -e ${server.replaceAll(" ", "")}`,
        upstream_url: `http://127.0.0.1:${upstream}`,
      });
      const ready = async () => (await fetch(`${watchdog.url}/_/ready`)).status === 200;
      await waitReady({ exited: new Promise(() => {}) }, ready, { what: "the function", timeoutMs: 30_000 });
      for (let i = 0; i < 50; i++) {
        const answer = await fetch(watchdog.url, { method: "POST", body: `hello ${i}` });
        assert.deepEqual([answer.status, await answer.text()], [200, `hello ${i}`]);
      }
      assert.equal((await watchdog.stop()).code, 0);
    });
  }

  test("its children are on real pipes, which takes the foreign function interface", async () => {
    await using watchdog = await started("plain", { fprocess: "readlink /proc/self/fd/0 /proc/self/fd/1" });
    const text = await (await fetch(watchdog.url)).text();
    assert.match(text, /^pipe:\[\d+\]\npipe:\[\d+\]\n$/);
  });

  test("a call that takes too long is ended", async () => {
    await using watchdog = await started("plain", { fprocess: "sleep 60", exec_timeout: "300ms" });
    assert.equal((await fetch(watchdog.url)).status, 408);
  });
});
