/**
 * `npm start`: napd in the foreground with a function to call, until Ctrl-C. Uses the machine's containerd when one
 * answers and a private one otherwise; leaves nothing behind but the data directory, and finds that again next time.
 *
 *   NAPD_START_DATA          data directory, default /var/lib/napd-dev
 *   NAPD_START_RUN           run directory, default /run/napd-dev; short, sockets are in it
 *   NAPD_CONTAINERD_SOCKET   containerd to use when it answers, default /run/containerd/containerd.sock
 *
 * napd's own variables (NAPD_SECTION_KEY) and arguments `--set section.key=value` win over what is set here.
 */
import { existsSync, statfsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type Child, sayExit, startChild, waitReady } from "./child.ts";
import { baseLayer, watchdogLayer, writeOciArchive } from "./oci-image.ts";
import { answers, commandLine, openContainerd, stopLeftOver, unmountUnder } from "./private-containerd.ts";

const dataDir = process.env.NAPD_START_DATA || "/var/lib/napd-dev";
const runDir = process.env.NAPD_START_RUN || "/run/napd-dev";
const napdRunDir = `${runDir}/napd`;
const napdPidFile = `${runDir}/napd.pid`;
const hostSocket = process.env.NAPD_CONTAINERD_SOCKET || "/run/containerd/containerd.sock";
const napdEntry = resolve(import.meta.dirname, "../src/main.ts");
/** Under a name that no registry can have, so that nobody is ever asked for it. */
const sampleRef = "sample.invalid/hello:1";

/** What reads the posted name from its input and greets: in fork mode that is a whole function. */
const sampleProgram = `#!/bin/sh
name=$(cat)
echo "Hello, \${name:-world}! It is $(date -u +%H:%M:%S) UTC, and this is container $(hostname)."
`;

type Settings = ReadonlyMap<string, string>;

/** The exit code: napd's own when it ends by itself, 0 after a signal. */
async function main(args: string[]): Promise<number> {
  const stop = stopOnSignals();
  const overrides = parseSettings(args);
  await using up = new AsyncDisposableStack();
  await claimRunDir();
  await stopLeftOver(napdPidFile, `paths.run=${napdRunDir}`); // it would hold the port still
  up.defer(removeRunDir);
  const settings = new Map([...(await ownSettings(up)), ...overrides]);

  const napd = await startChild(process.execPath, [napdEntry, ...asArguments(settings)]);
  up.defer(() => stopNapd(napd));
  await writeFile(napdPidFile, `${napd.pid}\n`);
  let code: number | undefined;
  void napd.exited.then((exit) => {
    code = exit.code ?? 1;
    stop.abort(new Error(`napd ended with ${sayExit(exit)}`));
  });
  try {
    await bringUp(napd, settings, stop.signal);
    await aborted(stop.signal);
  } catch (e) {
    if (!stop.signal.aborted) throw e; // else what failed, failed because we stop
  }
  return code ?? 0;
}

/**
 * One Ctrl-C reaches us twice, from the terminal and from npm, and an impatient user sends more: the first counts,
 * the others are heard and ignored, so that the clean-up always comes to its end.
 */
function stopOnSignals(): AbortController {
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.on(name, () => {
      if (!stop.signal.aborted) console.error("napd: stopping …");
      stop.abort(new Error(name));
    });
  process.stdout.on("error", () => {}); // the terminal is gone; cleaning up is still to be done
  process.stderr.on("error", () => {});
  return stop;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

// --- settings ------------------------------------------------------------------------------------------------------

function parseSettings(args: string[]): Settings {
  const settings = new Map<string, string>();
  for (let i = 0; i < args.length; i++) {
    const pair = args[i] === "--set" ? args[++i] : /^--set=(.*)$/s.exec(args[i]!)?.[1];
    const [, key, value] = /^([^=]+)=(.*)$/s.exec(pair ?? "") ?? [];
    if (key === undefined)
      throw new Error(`unknown argument ${args[i] ?? "--set"}; npm start -- --set section.key=value`);
    settings.set(key, value!);
  }
  return settings;
}

/** What is said here is said to napd by flags, which win over its environment: so the environment is asked first. */
async function ownSettings(up: AsyncDisposableStack): Promise<Settings> {
  const defaults: [string, string][] = [
    ["gateway.listen", "0.0.0.0:8080"],
    ["paths.data", dataDir],
    ["paths.run", napdRunDir],
    ["paths.logs", `${dataDir}/logs`],
    ["functions.on_stop", "remove"],
    ["log.level", "warn"],
  ];
  const chosen = defaults.map(([key, value]): [string, string] => [key, process.env[variableOf(key)] ?? value]);
  return new Map([...chosen, ...(await containerdSettings(up))]);
}

/** napd's rule: `gateway.listen` is NAPD_GATEWAY_LISTEN. */
function variableOf(key: string): string {
  return `NAPD_${key.replace(".", "_").toUpperCase()}`;
}

async function containerdSettings(up: AsyncDisposableStack): Promise<[string, string][]> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  if (await answers(hostSocket)) return [["containerd.socket", hostSocket]];
  const overlayfs = 0x794c7630;
  if (statfsSync(dataDir).type === overlayfs)
    throw new Error(
      `${dataDir} is on an overlay file system, which cannot hold another: set NAPD_START_DATA elsewhere`,
    );
  const containerd = up.use(await openContainerd({ dir: dataDir, runDir }));
  return [
    ["containerd.socket", containerd.socket],
    ["containerd.runc_root", `${runDir}/runc`], // runc's own default is shared by every containerd of the machine
  ];
}

function asArguments(settings: Settings): string[] {
  return [...settings].flatMap(([key, value]) => ["--set", `${key}=${value}`]);
}

/** Where to reach `gateway.listen` from here. */
function gatewayUrl(settings: Settings): string {
  const [, host, port] = /^(.*):(\d+)$/.exec(settings.get("gateway.listen")!) ?? [];
  return `http://${!host || host === "0.0.0.0" || host === "[::]" ? "127.0.0.1" : host}:${port ?? "8080"}`;
}

// --- the run directory ---------------------------------------------------------------------------------------------

async function claimRunDir(): Promise<void> {
  const pidFile = `${runDir}/start.pid`;
  const pid = existsSync(pidFile) ? Number(await readFile(pidFile, "utf8")) : 0;
  if (pid && pid !== process.pid && commandLine(pid).some((word) => word.endsWith("scripts/start.ts")))
    throw new Error(
      `npm start runs already, as process ${pid}: stop that one first, or set NAPD_START_DATA and NAPD_START_RUN`,
    );
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  await writeFile(pidFile, `${process.pid}\n`);
}

async function removeRunDir(): Promise<void> {
  await unmountUnder(runDir);
  await rm(runDir, { recursive: true, force: true });
}

// --- napd and the sample function ----------------------------------------------------------------------------------

async function stopNapd(napd: Child): Promise<void> {
  const exit = await napd.stop(60_000);
  if (exit.signal === "SIGKILL") console.error("napd: did not stop within 60 s and was killed");
}

/** Everything between napd's start and the moment when the sample function has answered. */
async function bringUp(napd: Child, settings: Settings, signal: AbortSignal): Promise<void> {
  const gateway = new Gateway(gatewayUrl(settings), `${settings.get("paths.data")}/credentials`, signal);
  const waitFor = (what: string, timeoutMs: number, ready: () => Promise<boolean>) =>
    waitReady(napd, ready, { what, timeoutMs, signal });
  await waitFor("napd", 60_000, () => gateway.isOurs());
  const hello = () => gateway.says("/function/hello");
  const isThere = await gateway.says("/system/function/hello");
  // There, but silent: its image is in another containerd than last time.
  if (!isThere || !(await succeeds(waitFor("function hello", 15_000, hello)))) {
    signal.throwIfAborted();
    await importSample(settings, signal);
    await gateway.deploy(isThere ? "PUT" : "POST", {
      service: "hello",
      image: sampleRef,
      annotations: { "napd.pull-policy": "Never" }, // it was imported; no registry has it
    });
    await waitFor("function hello", 60_000, hello);
  }
  await sayHowToUse(gateway);
}

async function succeeds(work: Promise<void>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}

/** The archive is made once: in it is a copy of the watchdog, which takes a moment to write. */
async function importSample(settings: Settings, signal: AbortSignal): Promise<void> {
  const archive = `${dataDir}/hello.tar`;
  if (!existsSync(archive)) {
    console.error("napd: making the sample image …");
    const program = { path: "/usr/local/bin/hello", content: sampleProgram, mode: 0o755 };
    await writeOciArchive(archive, {
      ref: sampleRef,
      layers: [await baseLayer(), await watchdogLayer(), [program]],
      cmd: ["fwatchdog"],
      // the watchdog's default is to go on for 30 s after SIGTERM, for load balancers that must notice; here is none
      env: [`fprocess=${program.path}`, "healthcheck_interval=100ms"],
      user: "app",
    });
  }
  await using importing = await startChild(process.execPath, [napdEntry, "import", ...asArguments(settings), archive]);
  const exit = await Promise.race([importing.exited, aborted(signal)]);
  signal.throwIfAborted();
  if (exit?.code !== 0) throw new Error(`the sample image could not be imported (${exit && sayExit(exit)})`);
}

/** napd's HTTP side, as a user has it. */
class Gateway {
  readonly url: string;
  readonly #credentials: string;
  readonly #signal: AbortSignal;

  constructor(url: string, credentials: string, signal: AbortSignal) {
    this.url = url;
    this.#credentials = credentials;
    this.#signal = signal;
  }

  get passwordFile(): string {
    return `${this.#credentials}/basic-auth-password`;
  }

  async user(): Promise<string> {
    return (await readFile(`${this.#credentials}/basic-auth-user`, "utf8")).trim();
  }

  /** Healthy, and it knows our password: a stranger on the same port does not. */
  async isOurs(): Promise<boolean> {
    return (await this.says("/healthz")) && (await this.says("/system/functions"));
  }

  /** Whether a GET answers 200. */
  async says(path: string): Promise<boolean> {
    try {
      const response = await this.#fetch(path, {
        signal: AbortSignal.any([this.#signal, AbortSignal.timeout(10_000)]),
      });
      await response.body?.cancel();
      return response.status === 200;
    } catch {
      return false; // not listening yet; who waits sees napd's end and the signal
    }
  }

  async deploy(method: "POST" | "PUT", body: unknown): Promise<void> {
    const headers = { "content-type": "application/json" };
    const request = { method, headers, body: JSON.stringify(body), signal: this.#signal };
    const response = await this.#fetch("/system/functions", request);
    const text = await response.text();
    if (!response.ok) throw new Error(`the sample function could not be deployed: ${response.status} ${text.trim()}`);
  }

  async #fetch(path: string, init: { method?: string; headers?: object; body?: string; signal: AbortSignal }) {
    const password = (await readFile(this.passwordFile, "utf8")).trim();
    const authorization = `Basic ${Buffer.from(`${await this.user()}:${password}`).toString("base64")}`;
    const withPassword = path.startsWith("/system/"); // functions have no business with it
    return fetch(this.url + path, { ...init, headers: { ...init.headers, ...(withPassword && { authorization }) } });
  }
}

async function sayHowToUse(gateway: Gateway): Promise<void> {
  const cat = process.env.SUDO_USER ? "sudo cat" : "cat"; // the file is root's
  console.log(`
napd is up. Ctrl-C stops it; the functions come back with the next start.

  gateway    ${gateway.url}
  password   ${gateway.passwordFile}, of user ${await gateway.user()}
  data       ${dataDir}

  curl -d Ada ${gateway.url}/function/hello
  curl -u "${await gateway.user()}:$(${cat} ${gateway.passwordFile})" ${gateway.url}/system/functions
`);
}

// at the end, where every class of this file is defined
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (e) {
  console.error(`napd: ${e instanceof Error ? e.message : e}`);
  process.exitCode = 1;
}
