/**
 * What the recorded cases do not ask: sizes, speed of passing on, logs as JSON, process groups, signals. Asked of the
 * compiled binary, which is what containers get.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { before, suite, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

const root = join(import.meta.dirname, "../..");
const binary = join(root, `dist/fwatchdog-linux-${process.arch}`);

before(() => {
  execFileSync(process.execPath, [join(root, "scripts/build-watchdog.ts")]);
});

/** A watchdog in its own folder. Disposing it ends it. */
class Running implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "watchdog-modes-"));
  #process!: ChildProcess;
  out = "";
  err = "";
  port = 0;
  metricsPort = 0;

  static async start(env: Record<string, string>, script = ""): Promise<Running> {
    const running = new Running();
    const file = join(running.folder, "f.sh");
    writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const all = { PATH: process.env.PATH ?? "", TMPDIR: running.folder, port: "0", metrics_port: "0", fprocess: file };
    running.#process = spawn(binary, [], { cwd: running.folder, env: { ...all, ...env } });
    running.#process.stdout!.on("data", (d) => (running.out += d));
    running.#process.stderr!.on("data", (d) => (running.err += d));
    await running.until(() => /Writing lock-file/.test(running.err));
    running.port = Number(/Listening on port: (\d+)/.exec(running.err)![1]);
    return running;
  }

  get pid(): number {
    return this.#process.pid!;
  }

  kill(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  async until(condition: () => boolean): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!condition()) {
      if (performance.now() > deadline) assert.fail(`did not happen within 10 s; log:\n${this.err}`);
      await sleep(5);
    }
  }

  open(path: string, send?: (body: NodeJS.WritableStream) => void): Promise<IncomingMessage> {
    const q = request({ host: "127.0.0.1", port: this.port, path, method: send ? "POST" : "GET", agent: false });
    const answer = once(q, "response") as Promise<[IncomingMessage]>;
    if (send) send(q);
    else q.end();
    return answer.then(([first]) => first);
  }

  get residentMegabytes(): number {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, "utf8"))![1]) / 1024;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#process, "exit");
    this.kill("SIGINT");
    const killer = setTimeout(() => this.kill("SIGKILL"), 3000);
    await gone;
    clearTimeout(killer);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function lines(log: string): Record<string, unknown>[] {
  return log
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

suite("watchdog: streaming mode", { timeout: 120_000 }, () => {
  test("1 GB goes through a process and back in constant memory", async () => {
    await using w = await Running.start({
      mode: "streaming",
      fprocess: "cat",
      read_timeout: "2m",
      write_timeout: "2m",
      exec_timeout: "2m",
    });
    const size = 1 << 30;
    const piece = Buffer.alloc(1 << 20, "x");
    const answer = await w.open("/", (body) => {
      let sent = 0;
      const more = (): void => {
        while (sent < size) {
          sent += piece.length;
          if (!body.write(piece)) return void body.once("drain", more);
        }
        body.end();
      };
      more();
    });
    let got = 0;
    let most = 0;
    for await (const chunk of answer) {
      got += (chunk as Buffer).length;
      if (got % (64 << 20) < 65536) most = Math.max(most, w.residentMegabytes);
    }
    assert.equal(got, size);
    assert.ok(most < 120, `${most} MB resident`);
  });

  test("a client that leaves ends an endless function by SIGPIPE", async () => {
    await using w = await Running.start({ mode: "streaming" }, "echo $$ > pid; exec yes");
    const answer = await w.open("/");
    await once(answer, "data");
    const pid = Number(readFileSync(join(w.folder, "pid"), "utf8"));
    answer.destroy();
    await w.until(() => !isAlive(pid));
  });

  test("a failure before the first output is a 500 with the reason", async () => {
    await using w = await Running.start({ mode: "streaming" }, "exit 3");
    const answer = await w.open("/");
    assert.deepEqual([answer.statusCode, await text(answer)], [500, "exit status 3"]);
  });
});

suite("watchdog: JSON logs", { timeout: 60_000 }, () => {
  test("every line is an object, the function's own ones too", async () => {
    const env = { mode: "serializing", log_format: "json", log_callid: "true" };
    await using w = await Running.start(env, 'echo "an error \\"quoted\\"" >&2; echo ok');
    assert.equal(await text(await w.open("/p?q=1")), "ok\n");
    await w.until(() => /ContentLength/.test(w.err));
    const all = lines(w.err);
    const { time, seconds, msg, ...access } = all.find((line) => line.method === "GET")!;
    assert.match(String(time), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.equal(typeof seconds, "number");
    assert.match(String(msg), /^GET \/p\?q=1 - 200 /);
    const expected = { source: "watchdog", method: "GET", uri: "/p?q=1", status: 200, bytes: 3, callId: "none" };
    assert.deepEqual(access, expected);
    const line = all.find(({ source }) => source === "function")!;
    assert.deepEqual([line.stream, line.msg], ["stderr", 'an error "quoted"']);
  });
});

suite("watchdog: static mode", { timeout: 60_000 }, () => {
  test("nothing outside of the folder is served; parts of files are", async () => {
    const folder = mkdtempSync(join(tmpdir(), "watchdog-www-"));
    writeFileSync(join(folder, "a.txt"), "0123456789");
    writeFileSync(join(folder, "no type"), "<html><p>hi");
    symlinkSync("a.txt", join(folder, "link.txt"));
    await using w = await Running.start({ mode: "static", static_path: folder, fprocess: "" });
    const get = async (path: string, headers: Record<string, string> = {}): Promise<[number, string]> => {
      const q = request({ host: "127.0.0.1", port: w.port, path, headers, agent: false }).end();
      const [answer] = (await once(q, "response")) as [IncomingMessage];
      return [answer.statusCode!, await text(answer)];
    };
    assert.deepEqual(await get("/../../../etc/passwd"), [404, "404 page not found\n"]);
    assert.deepEqual(await get("/%2e%2e/%2e%2e/etc/passwd"), [404, "404 page not found\n"]);
    assert.deepEqual(await get("/x/../a.txt"), [200, "0123456789"]);
    assert.deepEqual(await get("/a.txt", { Range: "bytes=2-4" }), [206, "234"]);
    assert.deepEqual(await get("/a.txt", { Range: "bytes=-3" }), [206, "789"]);
    assert.deepEqual(await get("/no%20type"), [200, "<html><p>hi"]);
    assert.equal((await get("/"))[1].split("\n")[1], '<a href="a.txt">a.txt</a>');
    rmSync(folder, { recursive: true });
  });

  test("files without a time, as in images whose digest follows from the content, are never said to be unchanged", async () => {
    const folder = mkdtempSync(join(tmpdir(), "watchdog-www-"));
    writeFileSync(join(folder, "a.txt"), "0123456789");
    utimesSync(join(folder, "a.txt"), 0, 0);
    await using w = await Running.start({ mode: "static", static_path: folder, fprocess: "" });
    const epoch = new Date(0).toUTCString();
    for (const headers of [{ "If-Modified-Since": epoch }, { "If-Range": epoch, Range: "bytes=2-4" }]) {
      const q = request({ host: "127.0.0.1", port: w.port, path: "/a.txt", headers, agent: false }).end();
      const [answer] = (await once(q, "response")) as [IncomingMessage];
      assert.deepEqual([answer.statusCode, answer.headers["last-modified"]], [200, undefined]);
      assert.equal(await text(answer), "0123456789");
    }
    rmSync(folder, { recursive: true });
  });
});

suite("watchdog: the rest", { timeout: 60_000 }, () => {
  test("a busy metrics port is a warning", async () => {
    await using first = await Running.start({}, "echo ok");
    await using w = await Running.start({ metrics_port: String(first.port) }, "echo ok");
    await w.until(() => /Warning: no metrics: .*EADDRINUSE/.test(w.err));
    assert.equal(await text(await w.open("/")), "ok\n");
  });

  test("signals that are the function's business reach it in http mode", async () => {
    const env = { mode: "http", upstream_url: "http://127.0.0.1:9" };
    await using w = await Running.start(env, "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done");
    await w.until(() => /up/.test(w.out));
    w.kill("SIGHUP");
    await w.until(() => /stdout: hup/.test(w.out));
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
