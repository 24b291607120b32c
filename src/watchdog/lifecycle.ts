import { formatDuration } from "../base/durations.ts";
import { messageOf } from "../base/errors.ts";
import type { Config } from "./config.ts";
import { Health } from "./health.ts";
import { log, stderr, stdout } from "./log.ts";
import { ClassicMode } from "./modes/classic.ts";
import { HttpMode } from "./modes/http.ts";
import type { Mode } from "./modes/mode.ts";
import { version } from "./runtime.ts";
import { Server } from "./server.ts";

/** Milliseconds that answers get to leave after the function has died, and log lines after everything. */
const LAST_WORDS_MS = 250;

/**
 * The watchdog from start to exit (contracts/watchdog.md §1.4, §4):
 *
 *   start ─► serving ─┬─ SIGTERM ─► unhealthy, still serving (healthcheck_interval) ─► draining ─► function stopped ─► exit 0
 *                     ├─ SIGINT ──────────────────────────────────────────────────────► the same, without the interval
 *                     └─ the function ends by itself ─► unhealthy ─► last answers ─► exit 1
 */
export class Watchdog {
  readonly #config: Config;
  readonly #mode: Mode;
  readonly #health: Health;
  readonly #server: Server;
  #stopping = false;

  constructor(config: Config, environment: Record<string, string>) {
    this.#config = config;
    this.#mode = config.mode === "http" ? new HttpMode(config, environment) : new ClassicMode(config, environment);
    this.#health = new Health(config);
    this.#server = new Server(config, this.#mode, this.#health);
  }

  /** Starts everything; the process then lives until a signal or the end of the function. */
  async run(): Promise<void> {
    // Signals first: as PID 1 their default action is to do nothing at all.
    process.on("SIGTERM", () => void this.#stop(this.#config.healthcheckIntervalMs));
    process.on("SIGINT", () => this.#interrupt());
    log(`Version: ${version}\tSHA: unknown`);
    for (const warning of this.#config.warnings) log(`Warning: ${warning}`);
    void this.#mode.start().then(
      (why) => this.#functionEnded(why),
      (e) => this.#functionEnded(`Forked function could not be started: ${messageOf(e)}`),
    );
    this.#logConfig();
    try {
      log(`Listening on port: ${await this.#server.listen()}`);
      this.#health.up();
    } catch (e) {
      log(messageOf(e));
      await this.#mode.stop();
      exit(1);
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
