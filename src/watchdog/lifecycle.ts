import { formatDuration } from "../base/durations.ts";
import { messageOf } from "../base/errors.ts";
import type { Config } from "./config.ts";
import { Health } from "./health.ts";
import { log, setLogFormat, stderr, stdout } from "./log.ts";
import type { Mode } from "./modes/mode.ts";
import { version } from "./runtime.ts";
import { Server } from "./server.ts";

/** Milliseconds that answers get to leave after the function has died, and log lines after everything. */
const LAST_WORDS_MS = 250;

/** Signals that are the function's business, in the mode where it runs all the time. */
const passedOn = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"] as const;

/** Loads the one mode that is asked for: the others cost time and memory at start. */
async function createMode(config: Config, environment: Record<string, string>): Promise<Mode> {
  switch (config.mode) {
    case "classic":
      return new (await import("./modes/classic.ts")).ClassicMode(config, environment);
    case "http":
      return new (await import("./modes/http.ts")).HttpMode(config, environment);
    case "serializing":
      return new (await import("./modes/serializing.ts")).SerializingMode(config, environment);
    case "streaming":
      return new (await import("./modes/streaming.ts")).StreamingMode(config, environment);
    case "static":
      return new (await import("./modes/static.ts")).StaticMode(config.staticPath);
  }
}

/** Starts the watchdog that `config` asks for. */
export async function runWatchdog(config: Config, environment: Record<string, string>): Promise<void> {
  setLogFormat(config.log.format);
  await new Watchdog(config, await createMode(config, environment)).run();
}

/**
 * The watchdog from start to exit (contracts/watchdog.md §1.4, §4):
 *
 *   start ─► serving ─┬─ SIGTERM ─► unhealthy, still serving (healthcheck_interval) ─► draining ─► function stopped ─► exit 0
 *                     ├─ SIGINT ──────────────────────────────────────────────────────► the same, without the interval
 *                     └─ the function ends by itself ─► unhealthy ─► last answers ─► exit 1
 */
class Watchdog {
  readonly #config: Config;
  readonly #mode: Mode;
  readonly #health: Health;
  readonly #server: Server;
  #stopping = false;

  constructor(config: Config, mode: Mode) {
    this.#config = config;
    this.#mode = mode;
    this.#health = new Health(config);
    this.#server = new Server(config, this.#mode, this.#health);
  }

  /** Starts everything; the process then lives until a signal or the end of the function. */
  async run(): Promise<void> {
    // Signals first: as PID 1 their default action is to do nothing at all.
    process.on("SIGTERM", () => void this.#stop(this.#config.healthcheckIntervalMs));
    process.on("SIGINT", () => this.#interrupt());
    if (this.#config.mode === "http") for (const name of passedOn) process.on(name, () => this.#mode.signal(name));
    log(`Version: ${version}\tSHA: unknown`);
    for (const warning of this.#config.warnings) log(`Warning: ${warning}`);
    void this.#mode.start().then(
      (why) => this.#functionEnded(why),
      (e) => this.#functionEnded(`Forked function could not be started: ${messageOf(e)}`),
    );
    this.#logConfig();
    try {
      await this.#authorize();
      log(`Listening on port: ${await this.#server.listen()}`);
      this.#health.up();
    } catch (e) {
      log(messageOf(e));
      await this.#mode.stop();
      exit(1);
    }
    await this.#afterStart();
  }

  async #authorize(): Promise<void> {
    if (!this.#config.auth) return;
    const { createAuthorizer } = await import("./auth.ts");
    this.#server.authorizer = await createAuthorizer(this.#config.auth);
    log("JWT Auth: true");
  }

  /** What nobody waits for. A busy metrics port is no reason to refuse calls (contracts/watchdog.md §5, 17). */
  async #afterStart(): Promise<void> {
    if (process.pid === 1) (await import("./reaper.ts")).reapOrphans();
    if (this.#config.metricsPort === 0) return;
    try {
      const { serveMetrics } = await import("./metrics-server.ts");
      log(`Metrics listening on port: ${await serveMetrics(this.#server.metrics, this.#config.metricsPort)}`);
    } catch (e) {
      log(`Warning: no metrics: ${messageOf(e)}`);
    }
  }

  #logConfig(): void {
    const { mode, commandLine, readTimeoutMs, writeTimeoutMs, execTimeoutMs, healthcheckIntervalMs } = this.#config;
    if (mode !== "classic") log(`Watchdog mode: ${mode}\tfprocess: ${JSON.stringify(commandLine)}`);
    const [read, write, hard, health] = [readTimeoutMs, writeTimeoutMs, execTimeoutMs, healthcheckIntervalMs].map(
      (ms) => (ms === 0 ? "0s" : formatDuration(ms)),
    );
    log(`Timeouts: read: ${read} write: ${write} hard: ${hard} health: ${health}${mode === "classic" ? "." : ""}`);
  }

  /** A second Ctrl-C does not wait for anything. */
  #interrupt(): void {
    if (!this.#stopping) return void this.#stop(0);
    void this.#mode.stop().then(() => exit(130));
  }

  /** The function is told last, when its calls are finished: told first, as in the reference, it drops them (§5, 3). */
  async #stop(intervalMs: number): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    log(`SIGTERM: no new connections in ${intervalMs === 0 ? "0s" : formatDuration(intervalMs)}`);
    this.#health.down();
    this.#server.announceClose();
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
    log(`No new connections allowed, draining: ${this.#server.inflight} requests`);
    await this.#server.drain(this.#config.writeTimeoutMs);
    await this.#server.closeAll(LAST_WORDS_MS);
    await this.#mode.stop();
    log(`Exiting. Active connections: ${this.#server.inflight}`);
    exit(0);
  }

  /** Also when it ended with 0: a watchdog without its function looks healthy and serves nobody (§5, 4). */
  async #functionEnded(why: string): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    log(why);
    this.#health.down();
    await this.#server.drain(LAST_WORDS_MS);
    await this.#server.closeAll(LAST_WORDS_MS);
    await this.#mode.stop();
    exit(1);
  }
}

/** Ends the process, after its last lines. */
export function exit(code: number): never {
  stdout.flushNow();
  stderr.flushNow();
  process.exit(code);
}
