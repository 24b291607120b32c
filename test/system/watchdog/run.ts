import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { type Case, type CaseEvent, type CaseRequest, casesFolder, type Expectation } from "./case.ts";
import { checkAnswer, checkOutput } from "./check.ts";
import { send, sendAndLeave } from "./client.ts";

/** Port of the token issuer of the jwt cases, and of the reference's metrics: both are fixed in the recording. */
const ISSUER_PORT = 8000;
const METRICS_PORT = 8081;
/** The time that static files were given when the cases were recorded. */
const FILE_TIME = new Date("2023-11-14T22:13:20Z");

const path = `${dirname(process.execPath)}:${process.env.PATH}`;
const fixtures = join(casesFolder, "fixtures");

/** Cases in which the reference starts, and we say that it cannot work. */
const endsAtStart = new Set(["http-upstream-localhost-noscheme", "new-inproc-no-handler"]);

/** Runs `program` through a recorded case and throws at the first thing that is not as `expect` says. */
export async function runCase(
  recorded: Case,
  expect: Expectation,
  events: CaseEvent[],
  program: string,
): Promise<void> {
  await using stage = await Stage.set(recorded, program);
  const c = stage.fill(recorded);
  const wanted = stage.fill(expect);
  const isStart = c.kind === "cli" || endsAtStart.has(c.name);
  if (isStart) return await stage.checkExit(wanted, c.waitMs ?? 5000, 0);
  await stage.ready(c.waitUpstream);
  const t0 = performance.now();
  const steps = stage.fill(events).map((event) => stage.at(t0, event));
  if (c.request) steps.push(stage.request(t0 + (c.requestAtMs ?? 0), c.request, wanted));
  await Promise.all(steps);
  if (wanted.exitCode !== undefined) await stage.checkExit(wanted, c.waitExitMs ?? 5000, t0);
  await stage.checkLogs(wanted, c.settleMs ?? 0);
}

/** A watchdog with all that a case puts around it. */
class Stage implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "watchdog-case-"));
  readonly #processes: ChildProcess[] = [];
  readonly #ports = { port: 0, upstream: 0, metrics: 0, issuer: 0 };
  readonly #tokens: Record<string, string> = {};
  #watchdog!: ChildProcess;
  #exit: number | null = null;
  #exitAt = 0;
  #out = "";
  #err = "";

  static async set(recorded: Case, program: string): Promise<Stage> {
    const stage = new Stage();
    try {
      const [port, upstream, metrics, issuer] = await freePorts(4);
      Object.assign(stage.#ports, { port, upstream, metrics, issuer });
      const c = stage.fill(recorded);
      stage.#writeFiles(c);
      for (const helper of c.helpers ?? []) await stage.#help(helper);
      for (const [name, url] of Object.entries(c.tokens ?? {})) stage.#tokens[name] = await (await fetch(url)).text();
      stage.#start(c, program);
      return stage;
    } catch (e) {
      await stage[Symbol.asyncDispose]();
      throw e;
    }
  }

  /** Puts ports, folders and tokens into every text of `value`. */
  fill<T>(value: T): T {
    const { port, upstream, issuer, metrics } = this.#ports;
    const text = JSON.stringify(value, (key, v) => (key === "port" && v === METRICS_PORT ? metrics : v))
      .replaceAll("{PORT}", String(port))
      .replaceAll("\\\\{PORT\\\\}", String(port))
      .replaceAll("{UP}", String(upstream))
      .replaceAll("\\\\{UP\\\\}", String(upstream))
      .replaceAll("{DIR}", this.folder)
      .replaceAll("{FIX}", fixtures)
      .replaceAll(`127.0.0.1:${ISSUER_PORT}`, `127.0.0.1:${issuer}`)
      .replace(/\{TOKEN\}/g, () => this.#tokens.TOKEN ?? "{TOKEN}");
    return JSON.parse(text);
  }

  #writeFiles(c: Case): void {
    for (const [name, text] of Object.entries(c.files ?? {})) {
      const file = join(this.folder, name);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, text, { mode: 0o755 });
      utimesSync(file, FILE_TIME, FILE_TIME);
    }
    for (const file of c.preTouch ?? []) writeFileSync(file, "");
  }

  /** A program beside the watchdog; it is ready when it says something. */
  async #help([program, ...args]: string[]): Promise<void> {
    const child = spawn(program!, [...args, String(this.#ports.issuer)], {
      env: { PATH: path },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#processes.push(child);
    await once(child.stdout, "data");
  }

  #start(c: Case, program: string): void {
    const calledAs = c.binary.startsWith("of-") ? "of-watchdog" : "fwatchdog";
    const command = [...(c.wrap ?? []), program, ...(c.argv ?? [])];
    this.#watchdog = spawn(command[0]!, command.slice(1), {
      cwd: this.folder,
      env: this.#environment(c),
      stdio: ["ignore", "pipe", "pipe"],
      ...(c.wrap ? { detached: true } : { argv0: calledAs }),
    });
    this.#processes.push(this.#watchdog);
    this.#watchdog.stdout!.on("data", (d) => (this.#out += d));
    this.#watchdog.stderr!.on("data", (d) => (this.#err += d));
    this.#watchdog.on("exit", (code, signal) => {
      this.#exit = code ?? (signal === "SIGINT" ? -2 : -1);
      this.#exitAt = performance.now();
    });
  }

  #environment(c: Case): Record<string, string> {
    const env: Record<string, string | null | undefined> = {
      PATH: path,
      HOME: "/root",
      TMPDIR: this.folder,
      port: String(this.#ports.port),
      metrics_port: String(this.#ports.metrics),
      fprocess: c.fprocess,
      ...(c.noModeEnv || c.mode === "classic" || c.mode === "cli" ? {} : { mode: c.mode }),
      ...(c.env.jwt_auth_local ? { jwt_auth_issuer: `http://127.0.0.1:${this.#ports.issuer}` } : {}),
      ...c.env,
    };
    return Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] != null));
  }

  /** Waits until the watchdog serves, and its upstream too if `upstream` says so. */
  async ready(upstream: boolean | undefined): Promise<void> {
    const deadline = performance.now() + 15_000;
    const lines = [/Listening on port/, ...(upstream ? [/Function is ready/] : [])];
    while (!lines.every((line) => line.test(this.#err))) {
      if (performance.now() > deadline || this.#exit !== null) assert.fail(`did not get ready:\n${this.#err}`);
      await sleep(5);
    }
  }

  /** One event, when its time has come. */
  async at(t0: number, event: CaseEvent): Promise<void> {
    const expect = event.expect ?? {};
    if (event.request) return this.request(t0 + event.atMs, event.request, expect);
    await until(t0 + event.atMs);
    if (event.signal) this.#watchdog.kill(`SIG${event.signal}` as NodeJS.Signals);
    if (event.rm) rmSync(event.rm);
    if (event.exists) assert.equal(existsSync(event.exists), expect.exists, `${event.exists} exists`);
    if (event.clientAbort) await sendAndLeave(event.clientAbort, this.#ports.port, event.abortAfterMs!);
    if (event.sh) await this.#shell(event.sh, expect);
  }

  async request(at: number, request: CaseRequest, expect: Expectation): Promise<void> {
    await until(at);
    const what = `${request.method ?? "raw"} ${request.path ?? ""}`;
    try {
      checkAnswer(await send(request, this.#ports.port, expect.closed), expect);
    } catch (e) {
      throw new Error(`${what}: ${(e as Error).message}\n--- log\n${this.#err.slice(-3000)}`, { cause: e });
    }
  }

  async #shell(recorded: string, expect: Expectation): Promise<void> {
    const script = recorded.replace("timeout 1 ", "timeout 10 "); // on a busy machine python takes a second to start
    const env = { PATH: path, WPID: String(this.#watchdog.pid) };
    const run = promisify(execFile)("/bin/sh", ["-c", script], { env }).catch((e: { stdout: string }) => e);
    assert.equal((await run).stdout, expect.sh, script);
  }

  /** Waits for the end of the watchdog, or that there is none, and compares. `t0`: when time began. */
  async checkExit(expect: Expectation, waitMs: number, t0: number): Promise<void> {
    const deadline = performance.now() + waitMs;
    while (this.#exit === null && performance.now() < deadline) await sleep(5);
    assert.equal(this.#exit ?? "still-running", expect.exitCode, `exit code\n--- log\n${this.#err.slice(-3000)}`);
    const ms = this.#exitAt - t0;
    if (expect.minExitMs !== undefined) assert.ok(ms >= expect.minExitMs, `exit after ${ms} ms`);
    if (expect.maxExitMs !== undefined) assert.ok(ms <= expect.maxExitMs, `exit after ${ms} ms`);
    if (t0 === 0) await this.checkLogs(expect, 0);
  }

  /** Outputs arrive a little after answers: looks again until they are as expected, or half a second has passed. */
  async checkLogs(expect: Expectation, settleMs: number): Promise<void> {
    await sleep(settleMs);
    const deadline = performance.now() + 500;
    for (;;) {
      try {
        checkOutput(this.#out, this.#err, expect);
        return;
      } catch (e) {
        if (performance.now() > deadline) throw e;
      }
      await sleep(10);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#processes) if (child.exitCode === null && child.signalCode === null) await end(child);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Ends a process; the children of a watchdog that is killed would survive, so it is asked first. */
async function end(child: ChildProcess): Promise<void> {
  const gone = once(child, "exit");
  child.kill("SIGINT");
  const killer = setTimeout(() => {
    child.kill("SIGKILL");
    // What runs in a namespace of its own is at the head of a group of its own.
    if (child.spawnargs[0] === "unshare") process.kill(-child.pid!, "SIGKILL");
  }, 3000);
  await gone;
  clearTimeout(killer);
}

async function until(at: number): Promise<void> {
  const left = at - performance.now();
  if (left > 0) await sleep(left);
}

/** Below the range from which the kernel takes ports for connections, so that none of those is in the way. */
let nextPort = 20_000 + (process.pid % 1000) * 10;

async function freePorts(count: number): Promise<number[]> {
  const found: number[] = [];
  while (found.length < count) {
    nextPort = nextPort >= 32_000 ? 20_000 : nextPort + 1;
    if (await isFree(nextPort)) found.push(nextPort);
  }
  return found;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const free = await new Promise<boolean>((resolve) => {
    server.on("error", () => resolve(false));
    server.listen(port, () => resolve(true));
  });
  server.close();
  return free;
}
