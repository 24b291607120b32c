/**
 * The watchdog as its users meet it: a process with an environment, a port, outputs and an exit code. Every
 * behaviour is run on Node and in the compiled binary, which is what containers get.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { type IncomingMessage, type RequestOptions, request } from "node:http";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer, text } from "node:stream/consumers";
import { before, suite, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { childrenOf } from "../support/processes.ts";

const root = join(import.meta.dirname, "../..");
const binary = join(root, `dist/fwatchdog-linux-${process.arch}`);

/** What runs the watchdog: program and first arguments. */
const runtimes: Record<string, string[]> = {
  node: [process.execPath, join(root, "src/watchdog/main.ts")],
  binary: [binary],
};

/** A function server with the behaviours that the tests need, one path each. */
const upstreamSource = `
const http = require("http"), crypto = require("crypto"), fs = require("fs");
let aborted = 0, hanging = 0, release = () => {}, written = 0;
const raw = (q) => { const f = []; for (let i = 0; i < q.rawHeaders.length; i += 2) f.push([q.rawHeaders[i], q.rawHeaders[i + 1]]); return f; };
const routes = {
  echo: async (q, s) => { const b = []; for await (const d of q) b.push(d); s.end(JSON.stringify({ method: q.method, url: q.url, fields: raw(q), body: Buffer.concat(b).toString("latin1") })); },
  fields: (q, s) => { s.writeHead(200, ["Set-Cookie", "a=1", "Set-Cookie", "b=2", "X-Case", "kept", "Connection", "X-Private", "X-Private", "p", "Keep-Alive", "timeout=7", "Proxy-Authenticate", "Basic", "X-Duration-Seconds", "mine", "Content-Length", "2"]); s.end("ok"); },
  status: (q, s) => { s.writeHead(+q.url.split("/")[2]); s.end(); },
  head: (q, s) => { s.writeHead(200, { "Content-Length": 1000 }); s.end(q.method === "HEAD" ? undefined : Buffer.alloc(1000)); },
  steps: (q, s) => { s.write("one"); release = () => s.end("two"); },
  release: (q, s) => { release(); s.end("released"); },
  sink: async (q, s) => { const h = crypto.createHash("sha256"); for await (const d of q) h.update(d); s.end(h.digest("hex")); },
  first: (q, s) => { q.once("data", () => s.write("got some;")); q.on("end", () => s.end("got all")); },
  big: (q, s) => { const n = +q.url.split("/")[2]; s.setHeader("Content-Length", n); let left = n; const go = () => { while (left > 0) { const k = Math.min(left, 65536); left -= k; written += k; if (!s.write(Buffer.alloc(k, 120))) return s.once("drain", go); } s.end(); }; go(); },
  written: (q, s) => s.end(String(written)),
  hang: (q, s) => { hanging++; s.on("close", () => { if (!s.writableFinished) aborted++; }); },
  hanging: (q, s) => s.end(String(hanging)),
  aborted: (q, s) => s.end(String(aborted)),
  die: (q, s) => { s.writeHead(200, { "Content-Length": 100 }); s.write("partial"); release = () => s.destroy(); },
  unlisten: (q, s) => { s.setHeader("Connection", "close"); s.end("bye"); server.close(); setInterval(() => {}, 1000); }, // refuses connections, and lives
  exit: (q, s) => { s.end("bye", () => process.exit(+q.url.split("/")[2])); },
  log: (q, s) => { process.stdout.write("L".repeat(+q.url.split("/")[2]) + "\\n"); fs.writeSync(2, "to-stderr\\n"); console.log("after"); s.end(); },
  term: (q, s) => { release = () => s.end("finished"); },
};
const server = http.createServer((q, s) => (routes[q.url.split(/[/?]/)[1]] || routes.echo)(q, s));
server.keepAliveTimeout = 60000;
server.on("upgrade", (q, k, early) => { k.write("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: " + q.headers.upgrade + "\\r\\nConnection: Upgrade\\r\\n\\r\\nhello;"); k.on("data", (d) => k.write("echo:" + d)); k.on("end", () => k.end()); });
if (process.env.ON_TERM === "ignore") process.on("SIGTERM", () => console.log("got-term"));
if (process.env.ON_TERM === "exit") process.on("SIGTERM", () => { console.log("got-term"); process.exit(0); });
const listen = () => server.listen(+process.argv[2], "127.0.0.1");
if (process.env.GATE) { const t = setInterval(() => { if (fs.existsSync(process.env.GATE)) { clearInterval(t); listen(); } }, 5); } else listen();
`;

interface Answer {
  status: number;
  fields: string[];
  headers: IncomingMessage["headers"];
  body: string;
}

/** A running watchdog in its own folder. Disposing it kills it and removes the folder. */
class Running implements AsyncDisposable {
  readonly process: ChildProcess;
  readonly folder: string;
  readonly exited: Promise<[number | null, NodeJS.Signals | null]>;
  out = "";
  err = "";
  port = 0;

  constructor(runtime: string, env: Record<string, string>, args: string[] = [], folder = newFolder()) {
    const [program, ...first] = runtimes[runtime]!;
    this.folder = folder;
    this.process = spawn(program!, [...first, ...args], {
      cwd: folder,
      env: { PATH: process.env.PATH ?? "", TMPDIR: folder, port: "0", metrics_port: "0", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.process.stdout!.on("data", (d) => (this.out += d));
    this.process.stderr!.on("data", (d) => (this.err += d));
    this.exited = once(this.process, "close") as typeof this.exited;
  }

  /** Until it serves. */
  async listening(): Promise<this> {
    await this.logged(/Writing lock-file|suppress_lock" is enabled/);
    this.port = Number(/Listening on port: (\d+)/.exec(this.err)?.[1]);
    return this;
  }

  logged(pattern: RegExp): Promise<void> {
    return until(() => pattern.test(this.err), `${pattern} in the log:\n${this.err}`);
  }

  printed(pattern: RegExp): Promise<void> {
    return until(() => pattern.test(this.out), `${pattern} in the output`);
  }

  async open(path: string, options: RequestOptions & { body?: string | Buffer } = {}): Promise<IncomingMessage> {
    const { body, ...rest } = options;
    const q = request({ host: "127.0.0.1", port: this.port, path, agent: false, ...rest });
    q.end(body);
    const [answer] = (await once(q, "response")) as [IncomingMessage];
    return answer;
  }

  async call(path: string, options: RequestOptions & { body?: string | Buffer } = {}): Promise<Answer> {
    const answer = await this.open(path, options);
    const body = (await buffer(answer)).toString("latin1");
    return { status: answer.statusCode!, fields: answer.rawHeaders, headers: answer.headers, body };
  }

  /** Sends bytes and gives everything that came back until the connection ended. */
  async raw(bytes: string, end = false): Promise<string> {
    const socket = connect({ port: this.port, host: "127.0.0.1", allowHalfOpen: true });
    socket.write(bytes, "latin1");
    if (end) socket.end();
    const all = await text(socket);
    socket.destroy();
    return all;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill("SIGTERM");
    const killer = setTimeout(() => this.process.kill("SIGKILL"), 5000);
    await this.exited;
    clearTimeout(killer);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function newFolder(): string {
  return mkdtempSync(join(tmpdir(), "watchdog-"));
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail(`did not happen within 10 s: ${what}`);
    await sleep(5);
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

function script(folder: string, name: string, lines: string): string {
  const file = join(folder, name);
  writeFileSync(file, `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
  return file;
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

function residentMegabytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1024;
}

before(() => {
  execFileSync(process.execPath, [join(root, "scripts/build-watchdog.ts")]);
  assert.ok(existsSync(binary));
});

for (const runtime of Object.keys(runtimes)) {
  const classic = (fprocess: string, env: Record<string, string> = {}, folder?: string): Promise<Running> =>
    new Running(runtime, { fprocess, ...env }, [], folder).listening();

  /** A classic watchdog whose function is a shell script. */
  const shell = (lines: string, env: Record<string, string> = {}): Promise<Running> => {
    const folder = newFolder();
    return classic(script(folder, "f.sh", lines), env, folder);
  };

  const http = async (env: Record<string, string> = {}): Promise<Running> => {
    const folder = newFolder();
    const port = await freePort();
    const file = join(folder, "upstream.cjs");
    writeFileSync(file, upstreamSource);
    const all = { mode: "http", fprocess: `${process.execPath} ${file} ${port}` };
    return new Running(runtime, { ...all, upstream_url: `http://127.0.0.1:${port}`, ...env }, [], folder).listening();
  };

  suite(`watchdog on ${runtime}: classic mode`, { timeout: 120_000 }, () => {
    test("the body goes to the function and its output comes back", async () => {
      await using w = await classic("cat");
      const a = await w.call("/", { method: "POST", body: "hello", headers: { "Content-Type": "application/json" } });
      assert.equal(a.status, 200);
      assert.equal(a.body, "hello");
      assert.equal(a.headers["content-type"], "application/json");
      assert.match(String(a.headers["x-duration-seconds"]), /^\d+\.\d{6}$/);
      assert.equal(a.headers["content-length"], "5");
      await w.logged(/Forking fprocess\.\n.*Wrote 5 Bytes - Duration: \d+\.\d{6}s/);
    });

    test("the request is in the environment of the function", async () => {
      await using w = await shell("env | grep -a ^Http_ | sort");
      const answer = await w.raw(
        "POST /a%20b/c?q=1&z=%20%41 HTTP/1.1\r\nHost: fn.example:99\r\ncontent-type: text/x\r\nX-Multi: one\r\n" +
          "X-Multi: two\r\nx-call-id: id1\r\nX_under: u\r\nx-EMPTY:\r\nX-Utf: caf\xc3\xa9\r\nConnection: close\r\n" +
          "Content-Length: 3\r\n\r\nabc",
      );
      assert.equal(
        answer.split("\r\n\r\n")[1],
        "Http_Connection=close\nHttp_ContentLength=3\nHttp_Content_Length=3\nHttp_Content_Type=text/x\n" +
          "Http_Host=fn.example:99\nHttp_Method=POST\nHttp_Path=/a b/c\nHttp_Query=q=1&z=%20%41\n" +
          "Http_X_Call_Id=id1\nHttp_X_Empty=\nHttp_X_Multi=one\nHttp_X_Utf=café\nHttp_X_under=u\n",
      );
    });

    test("a chunked body has length -1 and cgi_headers=false says nothing", async () => {
      await using w = await shell("env | grep -a ^Http_ | sort; cat");
      const a = await w.call("/", { method: "POST", body: "abcd", headers: { "Transfer-Encoding": "chunked" } });
      assert.match(
        a.body,
        /Http_ContentLength=-1\nHttp_Content_Length=-1\n[\s\S]*Http_Transfer_Encoding=chunked\nabcd$/,
      );
      await using quiet = await shell("env | grep -c ^Http_; true", { cgi_headers: "false" });
      assert.equal((await quiet.call("/")).body, "0\n");
    });

    for (const [what, lines, body] of [
      ["exit code", "echo out; echo err >&2; exit 7", "exit status 7\nout\nerr\n"],
      ["death by signal", "echo out; kill -9 $$", "signal: killed\nout\n"],
    ] as const)
      test(`a failure answers 500 and says why: ${what}`, async () => {
        await using w = await shell(lines);
        const a = await w.call("/", { headers: { "Content-Type": "application/json" } });
        assert.equal(a.status, 500);
        // Without real pipes (Node) the order of the two outputs is not known.
        assert.deepEqual(a.body.split("\n").sort(), body.split("\n").sort());
        assert.equal(a.headers["content-type"], "text/plain; charset=utf-8");
        assert.equal(a.headers["x-duration-seconds"], undefined);
      });

    for (const [fprocess, body] of [
      ["no-such-cmd-xyz a", 'exec: "no-such-cmd-xyz": executable file not found in $PATH\n'],
      ["/etc/passwd", "fork/exec /etc/passwd: permission denied\n"],
      ["/no/such", "fork/exec /no/such: no such file or directory\n"],
    ] as const)
      test(`a command that cannot be started answers 500: ${fprocess}`, async () => {
        await using w = await classic(fprocess);
        const a = await w.call("/");
        assert.deepEqual([a.status, a.body], [500, body]);
        assert.equal((await w.call("/a%00b")).status, 500);
        assert.equal((await w.call("/_/health")).status, 200);
      });

    test("combine_output=false keeps standard error out of the body and in the log", async () => {
      await using w = await shell("echo out; echo oops >&2", { combine_output: "false" });
      assert.equal((await w.call("/")).body, "out\n");
      await w.logged(/stderr: oops/);
    });

    test("exec_timeout answers 408 at once and ends the whole process group", async () => {
      await using w = await shell("sleep 60 & echo $! > child.pid; wait", { exec_timeout: "300ms" });
      const started = performance.now();
      const a = await w.call("/");
      assert.deepEqual([a.status, a.body], [408, "Killed process.\n"]);
      assert.ok(performance.now() - started >= 290);
      const pid = Number(readFileSync(join(w.folder, "child.pid"), "utf8"));
      await until(() => !isRunning(pid), "the end of the grandchild");
      await w.logged(/Killing process: /);
    });

    test("a process that left the group and keeps the output open does not keep the call", async () => {
      const env = { exec_timeout: "200ms", max_inflight: "1" };
      await using w = await shell("setsid sleep 60 & echo $! >escaped; sleep 60", env);
      assert.equal((await w.call("/")).status, 408);
      const escaped = Number(readFileSync(join(w.folder, "escaped"), "utf8"));
      try {
        // setsid runs its program in a child where it must; whoever is left holds the output.
        await until(async () => (await w.call("/")).status !== 429, "the end of the first call");
        w.process.kill("SIGTERM");
        assert.deepEqual(await w.exited, [0, null]);
      } finally {
        if (isRunning(escaped)) process.kill(escaped, "SIGKILL");
      }
    });

    test("other verbs are refused, and calls beyond max_inflight too", async () => {
      await using w = await shell("while [ ! -e go ]; do sleep 0.02; done", { max_inflight: "1" });
      for (const method of ["HEAD", "OPTIONS"]) assert.equal((await w.call("/", { method })).status, 405);
      const first = w.call("/");
      await w.logged(/Forking/);
      const second = await w.call("/");
      assert.equal(second.status, 429);
      assert.equal(second.body, "Concurrent request limit exceeded. Max concurrent requests: 1\n");
      assert.equal(second.headers["x-openfaas-internal"], "faas-middleware");
      writeFileSync(join(w.folder, "go"), "");
      assert.equal((await first).status, 200);
    });

    test("8 MiB go through a process, and one that does not read them does not mind", async () => {
      const body = Buffer.alloc(8 << 20, "ab");
      await using w = await classic("sha256sum");
      const hash = createHash("sha256").update(body).digest("hex");
      assert.equal((await w.call("/", { method: "POST", body })).body, `${hash}  -\n`);
      await using echo = await classic("cat");
      assert.equal((await echo.call("/", { method: "POST", body })).body.length, body.length);
      await using deaf = await classic("echo ignored");
      assert.equal((await deaf.call("/", { method: "POST", body })).body, "ignored\n");
    });

    test("a client that leaves does not stop its process", async () => {
      await using w = await shell("while [ ! -e go ]; do sleep 0.02; done; touch finished");
      const q = request({ port: w.port, host: "127.0.0.1" }).on("error", () => {});
      q.end();
      await w.logged(/Forking/);
      q.destroy();
      writeFileSync(join(w.folder, "go"), "");
      await until(() => existsSync(join(w.folder, "finished")), "the end of the process");
    });

    test("16 calls at a time, 200 in all, each with its own output", async () => {
      await using w = await classic("cat");
      let next = 0;
      const worker = async (): Promise<void> => {
        while (next < 200) {
          const body = `call ${next++} ${"x".repeat(next * 500)}`;
          assert.equal((await w.call("/", { method: "POST", body })).body, body);
        }
      };
      await Promise.all(Array.from({ length: 16 }, worker));
      const descriptors = readdirSync(`/proc/${w.process.pid}/fd`).length;
      assert.ok(descriptors < 64, `${descriptors} descriptors are open`);
    });

    if (runtime === "binary")
      test("standard streams are pipes that can be opened by name, in order", async () => {
        await using w = await shell("cat /dev/stdin; echo a; echo b > /dev/stderr; echo c >&2; echo d > /dev/stdout");
        assert.equal((await w.call("/", { method: "POST", body: "in;" })).body, "in;a\nb\nc\nd\n");
      });
  });

  suite(`watchdog on ${runtime}: the HTTP server`, { timeout: 120_000 }, () => {
    for (const [what, bytes, status] of [
      ["no Host", "GET / HTTP/1.1\r\n\r\n", 400],
      ["garbage", "hello\r\n\r\n", 400],
      ["two lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400],
      ["unknown coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501],
      ["bad chunk", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400],
      ["folded field", "GET / HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n", 400],
      ["HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
      ["lines without carriage returns", "GET / HTTP/1.1\nHost: h\n\n", 400],
      ["an unknown expectation", "POST / HTTP/1.1\r\nHost: h\r\nExpect: a miracle\r\nContent-Length: 0\r\n\r\n", 417],
      ["huge head", `GET / HTTP/1.1\r\nHost: h\r\nX: ${"a".repeat(1056768)}\r\n\r\n`, 431],
    ] as const)
      test(`${status} for ${what}`, async () => {
        await using w = await classic("cat");
        assert.match(await w.raw(bytes), new RegExp(`^HTTP/1\\.1 ${status} `));
      });

    test("pipelined requests are answered in order", async () => {
      await using w = await classic("cat");
      const one = (body: string, more = ""): string =>
        `POST / HTTP/1.1\r\nHost: h\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`;
      const all = await w.raw(one("first") + one("second") + one("third", "Connection: close\r\n"));
      assert.deepEqual(all.match(/first|second|third/g), ["first", "second", "third"]);
    });

    test("pipelined requests are answered also when the client has closed its side", async () => {
      await using w = await classic("cat");
      const post = (body: string): string => `POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n${body}`;
      const all = await w.raw(["one..", "two..", "three"].map(post).join(""), true);
      assert.deepEqual(all.match(/one|two|three/g), ["one", "two", "three"]);
      assert.match(await w.raw("GET / HTTP/1.1\r\nHost: h\r\nX-Cut", true), /^HTTP\/1\.1 400 /);
    });

    test("a client that does not read its answers is not served more of them", async () => {
      await using w = await shell("echo >>served; head -c 20000000 /dev/zero");
      const socket = connect(w.port, "127.0.0.1").pause();
      socket.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3));
      await w.logged(/Wrote 20000000/);
      await w.call("/_/health"); // the connection has had its turn
      assert.equal(readFileSync(join(w.folder, "served"), "utf8").length, 1);
      let read = 0;
      socket.on("data", (d) => (read += d.length)).resume();
      await until(() => read > 60_000_000, "all three answers");
      socket.destroy();
    });

    test("an answer on a connection that ends with it arrives whole, however slowly it is read", async () => {
      await using w = await shell("head -c 20000000 /dev/zero");
      const socket = connect({ port: w.port, host: "127.0.0.1", allowHalfOpen: true }).pause();
      socket.write("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
      await w.logged(/Wrote 20000000/);
      await sleep(800); // longer than a connection is kept half open for the client's sake
      const answer = await buffer(socket);
      assert.equal(answer.length - answer.indexOf("\r\n\r\n") - 4, 20_000_000);
      socket.destroy();
    });

    test("a client that leaves is noticed although nobody reads its body", async () => {
      const folder = newFolder();
      writeFileSync(join(folder, "large"), "");
      truncateSync(join(folder, "large"), 100_000_000);
      await using w = await new Running(runtime, { mode: "static", static_path: folder }, [], folder).listening();
      const descriptors = (): number => readdirSync(`/proc/${w.process.pid}/fd`).length;
      const before = descriptors();
      for (let i = 0; i < 20; i++) {
        const socket = connect(w.port, "127.0.0.1").on("error", () => {});
        socket.write(`POST /large HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n${"x".repeat(300_000)}`);
        await once(socket, "data");
        socket.destroy();
      }
      await until(() => descriptors() <= before, `${before} descriptors again`);
    });

    test("a request in absolute form finds the watchdog's own routes", async () => {
      await using w = await classic("false");
      assert.match(
        await w.raw("GET http://h/_/health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
        /^HTTP\/1\.1 200 [\s\S]*OK$/,
      );
    });

    test("a client may close its side and still read", async () => {
      await using w = await classic("cat");
      const answer = await w.raw("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", true);
      assert.match(answer, /^HTTP\/1\.1 200 [\s\S]*\r\n\r\nabc$/);
      const cut = await w.raw("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc", true);
      assert.match(cut, /^HTTP\/1\.1 400 [\s\S]*unexpected EOF\n$/);
    });

    test("read_timeout ends a body that does not come, and an idle connection", async () => {
      await using w = await classic("cat", { read_timeout: "200ms" });
      const slow = await w.raw("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
      assert.match(slow, /^HTTP\/1\.1 400 [\s\S]*i\/o timeout\n$/);
      assert.match(await w.raw("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), /^HTTP\/1\.1 200 [\s\S]*\r\n\r\n$/);
      assert.equal(await w.raw(""), "");
    });

    test("Expect: 100-continue is answered before the body is sent", async () => {
      await using w = await classic("cat");
      const socket = connect(w.port, "127.0.0.1");
      socket.write(
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
      );
      const [interim] = (await once(socket, "data")) as [Buffer];
      assert.equal(interim.toString(), "HTTP/1.1 100 Continue\r\n\r\n");
      socket.write("hi");
      assert.match(await text(socket), /^HTTP\/1\.1 200 [\s\S]*hi$/);
      // Answered without the body: whatever comes next on this connection would be anybody's guess.
      const refused = await w.raw("HEAD / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
      assert.match(refused, /^HTTP\/1\.1 405 [\s\S]*\r\nConnection: close\r\n/);
    });
  });

  suite(`watchdog on ${runtime}: http mode`, { timeout: 120_000 }, () => {
    test("a request reaches the upstream as it was sent", async () => {
      await using w = await http();
      const answer = await w.raw(
        "FROB //a/../b%2Fc?x=%20&y HTTP/1.1\r\nHost: my.host:1\r\nX-Multi: a\r\nx-multi: b\r\nConnection: close, X-Foo\r\n" +
          "X-Foo: f\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: k\r\n\r\n",
      );
      assert.match(answer, /^HTTP\/1\.1 400 /, "an extension method is passed on: it is Node that refuses it");
      const { body } = await w.call("//a/../b%2Fc?x=%20&y", {
        method: "POST",
        body: "hello",
        headers: {
          Host: "my.host:1",
          "X-Multi": ["a", "b"],
          Connection: "close, X-Foo",
          "X-Foo": "f",
          TE: "trailers",
          "Content-Length": 5,
        },
      });
      const seen = JSON.parse(body);
      assert.deepEqual([seen.method, seen.url, seen.body], ["POST", "//a/../b%2Fc?x=%20&y", "hello"]);
      assert.deepEqual(
        seen.fields.filter(([name]: string[]) => name !== "User-Agent"),
        [
          ["Host", "my.host:1"],
          ["X-Multi", "a"],
          ["X-Multi", "b"],
          ["Content-Length", "5"],
        ],
      );
    });

    test("bodies keep their framing: length, chunks, none, also on GET", async () => {
      await using w = await http();
      const names = async (options: Parameters<Running["call"]>[1]): Promise<string> => {
        const seen = JSON.parse((await w.call("/echo", options)).body);
        const framing = seen.fields.filter(([n]: string[]) => /^(content-length|transfer-encoding)$/i.test(n!));
        return `${framing.join()} ${seen.body}`;
      };
      assert.equal(await names({ method: "GET" }), " ");
      assert.equal(
        await names({ method: "GET", body: "abc", headers: { "Content-Length": 3 } }),
        "Content-Length,3 abc",
      );
      assert.equal(await names({ method: "POST", body: "", headers: { "Content-Length": 0 } }), "Content-Length,0 ");
      assert.equal(
        await names({ method: "POST", body: "abc", headers: { "Transfer-Encoding": "chunked" } }),
        "Transfer-Encoding,chunked abc",
      );
      await using buffering = await http({ http_buffer_req_body: "true" });
      const headers = { "Transfer-Encoding": "chunked" };
      const seen = JSON.parse((await buffering.call("/echo", { method: "POST", body: "abc", headers })).body);
      assert.deepEqual(seen.fields.at(-1), ["Content-Length", "3"]);
      assert.equal(seen.body, "abc");
    });

    test("an answer reaches the client as it was sent", async () => {
      await using w = await http();
      const { fields, body } = await w.call("/fields");
      assert.equal(body, "ok");
      const names = fields.filter((_, i) => i % 2 === 0);
      const expected = [
        "Set-Cookie",
        "Set-Cookie",
        "X-Case",
        "Content-Length",
        "Date",
        "X-Duration-Seconds",
        "Content-Type", // told by the bytes, because the function did not
        "Connection",
      ];
      assert.deepEqual(names, expected); // the last one is the answer to the client's own "Connection: close"
      assert.equal(fields[names.indexOf("Connection") * 2 + 1], "close");
      assert.match(fields[names.indexOf("X-Duration-Seconds") * 2 + 1]!, /^\d+\.\d{6}$/);
      for (const status of [204, 304, 299, 302, 404, 500]) {
        const a = await w.call(`/status/${status}`);
        assert.deepEqual([a.status, a.body], [status, ""]);
      }
      const head = await w.call("/head", { method: "HEAD" });
      assert.equal(head.headers["content-length"], "1000");
      assert.equal((await w.call("/head")).body.length, 1000);
    });

    test("an answer streams piece by piece", async () => {
      await using w = await http();
      const answer = await w.open("/steps");
      const pieces = answer[Symbol.asyncIterator]();
      assert.equal(String((await pieces.next()).value), "one");
      await w.call("/release");
      assert.equal(String((await pieces.next()).value), "two");
    });

    test("a request streams piece by piece", async () => {
      await using w = await http();
      const q = request({ port: w.port, host: "127.0.0.1", path: "/first", method: "POST", agent: false });
      q.write("some");
      const [answer] = (await once(q, "response")) as [IncomingMessage];
      const pieces = answer[Symbol.asyncIterator]();
      assert.equal(String((await pieces.next()).value), "got some;");
      q.end("more");
      assert.equal(String((await pieces.next()).value), "got all");
    });

    test("100 MB go both ways unchanged, in bounded memory", async () => {
      await using w = await http();
      const piece = Buffer.alloc(1 << 20, "0123456789abcdef");
      const hash = createHash("sha256");
      const q = request({ port: w.port, host: "127.0.0.1", path: "/sink", method: "POST", agent: false });
      for (let i = 0; i < 100; i++) {
        hash.update(piece);
        if (!q.write(piece)) await once(q, "drain");
      }
      q.end();
      const [answer] = (await once(q, "response")) as [IncomingMessage];
      assert.equal(await text(answer), hash.digest("hex"));
      const down = createHash("sha256");
      let size = 0;
      for await (const chunk of await w.open("/big/104857600")) {
        size += chunk.length;
        down.update(chunk);
      }
      assert.equal(size, 104857600);
      assert.equal(down.digest("hex"), createHash("sha256").update(Buffer.alloc(104857600, "x")).digest("hex"));
      assert.ok(residentMegabytes(w.process.pid!) < 250, `${residentMegabytes(w.process.pid!)} MB`);
    });

    test("a client that does not read stops the upstream", async () => {
      await using w = await http();
      const answer = await w.open("/big/1073741824");
      let written = "";
      await until(async () => {
        const before = written;
        written = (await w.call("/written")).body;
        if (written !== before) await sleep(100);
        return written === before;
      }, "a pause of the upstream");
      assert.ok(Number(written) < 64 << 20, `${written} bytes went on`);
      answer.destroy();
    });

    test("a client that leaves cancels its call at the upstream", async () => {
      await using w = await http();
      const q = request({ port: w.port, host: "127.0.0.1", path: "/hang" }).on("error", () => {});
      q.end();
      await until(async () => (await w.call("/hanging")).body === "1", "the arrival of the call");
      q.destroy();
      await until(async () => (await w.call("/aborted")).body === "1", "the cancellation");
      await w.logged(/client closed the connection/);
    });

    test("an upstream that dies within its answer breaks the client's connection", async () => {
      await using w = await http();
      const answer = await w.open("/die");
      const broken = assert.rejects(buffer(answer), { code: "ECONNRESET" });
      await w.call("/release");
      await broken;
    });

    test("exec_timeout answers 504, an unreachable upstream 500, both marked as our own", async () => {
      await using w = await http({ exec_timeout: "300ms" });
      assert.equal((await w.call("/aborted")).status, 200);
      const late = await w.call("/hang");
      assert.equal(late.status, 504);
      assert.equal(late.headers["x-openfaas-internal"], "of-watchdog");
      await w.logged(/killed due to exec_timeout: 300ms/);
      assert.equal((await w.call("/hang", { headers: { "X-Timeout": "50ms" } })).status, 504);
      await w.logged(/killed due to exec_timeout: 50ms/);
      await using gone = await http();
      await gone.call("/unlisten");
      const refused = await gone.call("/echo");
      assert.equal(refused.status, 500);
      assert.equal(refused.headers["x-openfaas-internal"], "of-watchdog");
    });

    test("calls wait for an upstream that does not listen yet, and /_/ready says so", async () => {
      const gate = join(newFolder(), "gate");
      await using w = await http({ GATE: gate });
      assert.equal((await w.call("/_/ready")).status, 503);
      assert.equal((await w.call("/_/health")).status, 200);
      const early = w.call("/echo", { method: "POST", body: "patience" });
      writeFileSync(gate, "");
      const answer = await early;
      assert.equal(answer.status, 200);
      assert.equal(JSON.parse(answer.body).body, "patience");
      assert.equal((await w.call("/_/ready")).status, 200);
      rmSync(join(gate, ".."), { recursive: true });
      await using never = await http({ GATE: "/nowhere", exec_timeout: "200ms" });
      assert.equal((await never.call("/echo")).status, 504);
    });

    for (const [what, end] of [
      ["fails", "/exit/3"],
      ["ends with 0", "/exit/0"],
    ] as const)
      test(`the watchdog exits 1 when the function ${what}`, async () => {
        await using w = await http();
        assert.equal((await w.call(end)).body, "bye");
        assert.deepEqual(await w.exited, [1, null]);
        assert.match(w.err, /Forked function has terminated: exit status/);
        assert.ok(!existsSync(join(w.folder, ".lock")));
      });

    test("the watchdog exits 1 when the function cannot be started", async () => {
      await using w = new Running(runtime, {
        mode: "http",
        upstream_url: "http://127.0.0.1:1",
        fprocess: "no-such-cmd",
      });
      assert.deepEqual(await w.exited, [1, null]);
      assert.match(w.err, /executable file not found/);
    });

    test("a WebSocket is passed on, in any spelling", async () => {
      await using w = await http();
      for (const name of ["websocket", "WebSocket"]) {
        const socket: Socket = connect(w.port, "127.0.0.1");
        socket.write(`GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: ${name}\r\n\r\n`);
        let all = "";
        socket.on("data", (d) => (all += d));
        await until(() => all.endsWith("hello;"), "the greeting");
        assert.match(all, new RegExp(`^HTTP/1\\.1 101 [\\s\\S]*Upgrade: ${name}\r\n`));
        socket.write("ping");
        await until(() => all.endsWith("echo:ping"), "the echo");
        socket.end();
        await once(socket, "close");
      }
    });

    test("a WebSocket is a call under way, and does not keep a stop waiting", async () => {
      await using w = await http({ max_inflight: "1" });
      const socket = connect(w.port, "127.0.0.1").on("error", () => {});
      socket.write("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
      await once(socket, "data");
      assert.equal((await w.call("/echo")).status, 429);
      const closed = once(socket, "close");
      w.process.kill("SIGTERM");
      assert.deepEqual(await w.exited, [0, null]);
      await closed;
    });

    test("HTTP/1.0 clients can tell a broken answer from a whole one", async () => {
      await using w = await http({ exec_timeout: "300ms" });
      await assert.rejects(w.raw("GET /steps HTTP/1.0\r\n\r\n"), { code: "ECONNRESET" });
    });

    test("log lines of any length arrive whole and prefixed", async () => {
      await using w = await http();
      for (const length of [5, 65535, 70000, 3_000_000]) {
        await w.call(`/log/${length}`);
        await w.printed(
          new RegExp(`^\\d{4}/\\d\\d/\\d\\d \\d\\d:\\d\\d:\\d\\d stdout: L{${Math.min(length, 65535)}}`, "m"),
        );
        await until(() => w.out.endsWith("stdout: after\n"), "the next line");
        assert.equal(
          w.out
            .split("\n")
            .at(-3)!
            .replace(/^.*stdout: /, "").length,
          length,
        );
        w.out = "";
      }
      await w.logged(/^\d{4}\S+ \S+ stderr: to-stderr$/m);
      await using bare = await http({ prefix_logs: "false" });
      await bare.call("/log/5");
      await until(() => bare.out === "LLLLL\nafter\n", "lines without prefix");
    });
  });

  suite(`watchdog on ${runtime}: life`, { timeout: 120_000 }, () => {
    test("SIGTERM: unhealthy at once, calls finish, then the function is told, exit 0", async () => {
      await using w = await http({ healthcheck_interval: "500ms", ON_TERM: "exit" });
      assert.ok(existsSync(join(w.folder, ".lock")));
      const slow = w.call("/term");
      await w.call("/echo"); // the function runs, and has the slow call
      w.process.kill("SIGTERM");
      await w.logged(/SIGTERM: no new connections in 500ms/);
      assert.equal((await w.call("/_/health")).status, 503);
      assert.equal((await w.call("/_/ready")).status, 503);
      assert.ok(!existsSync(join(w.folder, ".lock")));
      assert.equal((await w.call("/echo")).headers.connection, "close");
      assert.doesNotMatch(w.out, /got-term/);
      await w.call("/release");
      assert.equal((await slow).body, "finished");
      assert.deepEqual(await w.exited, [0, null]);
      assert.match(w.out, /got-term/);
    });

    test("a function that ignores SIGTERM is killed", async () => {
      await using w = await http({ ON_TERM: "ignore" });
      await w.call("/echo");
      const [pid = 0] = childrenOf(w.process.pid!);
      assert.ok(pid > 0);
      w.process.kill("SIGTERM");
      assert.deepEqual(await w.exited, [0, null]);
      assert.match(w.out, /got-term/);
      assert.ok(!isRunning(pid));
    });

    test("SIGTERM waits for a process under way, at most write_timeout", async () => {
      await using w = await shell("while [ ! -e go ]; do sleep 0.02; done; echo done");
      const call = w.call("/");
      await w.logged(/Forking/);
      w.process.kill("SIGTERM");
      await w.logged(/draining: 1 requests/);
      writeFileSync(join(w.folder, "go"), "");
      assert.equal((await call).body, "done\n");
      assert.deepEqual(await w.exited, [0, null]);
      await using stuck = await shell("exec sleep 60", { write_timeout: "300ms" });
      const lost = stuck.call("/");
      lost.catch(() => {});
      await stuck.logged(/Forking/);
      stuck.process.kill("SIGTERM");
      assert.deepEqual(await stuck.exited, [0, null]);
      await assert.rejects(lost);
    });

    test("SIGINT ends it too", async () => {
      await using w = await classic("cat");
      w.process.kill("SIGINT");
      assert.deepEqual(await w.exited, [0, null]);
    });

    test("health follows the lock file, and --run-healthcheck asks for it", async () => {
      await using w = await classic("cat");
      assert.deepEqual([(await w.call("/_/health")).status, (await w.call("/_/health")).body], [200, "OK"]);
      assert.equal((await w.call("/_/health", { method: "POST" })).status, 405);
      const check = async (): Promise<number | null> => {
        const run = new Running(runtime, { TMPDIR: w.folder }, ["--run-healthcheck"]);
        const [code] = await run.exited;
        await run[Symbol.asyncDispose]();
        return code;
      };
      assert.equal(await check(), 0);
      rmSync(join(w.folder, ".lock"));
      assert.equal(await check(), 1);
      assert.equal((await w.call("/_/health")).status, 503);
      await using locked = await classic("cat", { suppress_lock: "true" });
      assert.equal((await locked.call("/_/health")).status, 200);
      assert.ok(!existsSync(join(locked.folder, ".lock")));
    });

    for (const [what, env, args, code, line] of [
      ["version", {}, ["--version"], 0, /Version: \S+\tSHA: /],
      ["unknown flag", {}, ["-nope"], 2, /flag provided but not defined: -nope/],
      ["no fprocess", {}, [], 2, /provide a "fprocess"/],
      ["retired mode", { fprocess: "cat", mode: "afterburn" }, [], 2, /mode "afterburn" is no longer supported/],
      ["unknown mode", { fprocess: "cat", mode: "quick" }, [], 2, /mode "quick" is unknown/],
      ["no upstream", { fprocess: "cat", mode: "http" }, [], 1, /valid URL for "http_upstream_url"/],
      ["unwritable lock", { fprocess: "cat", TMPDIR: "/dev/null/x" }, [], 1, /cannot write lock-file/],
    ] as const)
      test(`one clear line and the exit code: ${what}`, async () => {
        await using w = new Running(runtime, env as Record<string, string>, [...args]);
        assert.deepEqual(await w.exited, [code, null]);
        assert.match(w.err, line);
      });

    test("a port in use is an error, not a success", async () => {
      await using w = await classic("cat");
      await using second = new Running(runtime, { fprocess: "cat", port: String(w.port) });
      assert.deepEqual(await second.exited, [1, null]);
      assert.match(second.err, /cannot listen on port \d+: EADDRINUSE/);
    });
  });
}
