import { type Child, describeExit, type Exit, killGroup, startChild } from "../child.ts";
import type { Config } from "../config.ts";
import type { Exchange, Handler } from "../http1/exchange.ts";
import { UpstreamPool } from "../http1/upstream.ts";
import { log, stderr, stdout } from "../log.ts";
import { addressesOf, untilListening } from "../readiness.ts";
import { relayFor } from "../relay.ts";
import type { Mode } from "./mode.ts";
import { ProxyCall } from "./proxy-call.ts";

/** Milliseconds between SIGTERM and SIGKILL for a function that does not end by itself. */
const STOP_GRACE_MS = 2000;

/** Milliseconds that the kernel gets to end what was killed, so that nothing of it outlives us. */
const KILL_MS = 200;

/** A reverse proxy to the function's own HTTP server, which is started once (contracts/watchdog.md §3.4). */
export class HttpMode implements Mode {
  readonly #config: Config;
  readonly #environment: Record<string, string>;
  readonly pool: UpstreamPool;
  readonly #stopReady = new AbortController();
  readonly #waiting = new Set<ProxyCall>();
  #child: Child | null = null;
  #ready = false;
  #stopping = false;

  constructor(config: Config, environment: Record<string, string>) {
    this.#config = config;
    this.#environment = environment;
    this.pool = new UpstreamPool(addressesOf(config.http.upstream.host)[0]!, config.http.upstream);
  }

  async start(): Promise<string> {
    const { command } = this.#config;
    log(`Forking: ${command[0]}, arguments: [${command.slice(1).join(" ")}]`);
    const err = relayFor(stderr, "stderr", this.#config.log);
    const out = relayFor(stdout, "stdout", this.#config.log);
    this.#child = startChild({
      command,
      env: this.#environment,
      stdin: "open",
      stdout: (chunk) => out.write(chunk),
      stderr: (chunk) => err.write(chunk),
    });
    void this.#child.closed.then(
      () => [out, err].forEach((relay) => void relay.end()),
      () => {},
    );
    void this.#watchReadiness();
    const exit = await this.#child.exited.finally(() => this.#gone());
    return `Forked function has terminated: ${describeExit(exit)}`;
  }

  ready(): boolean {
    return this.#ready;
  }

  serve(exchange: Exchange): Handler {
    const call = new ProxyCall(exchange, this.#config, this.pool);
    if (this.#ready) call.begin();
    else if (this.#stopReady.signal.aborted) call.refuse("the function has terminated");
    else this.#waiting.add(call);
    return call;
  }

  signal(name: NodeJS.Signals): void {
    if (this.#child) killGroup(this.#child.pid, name);
  }

  /** SIGTERM, and SIGKILL for the whole group when the function lingers. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#stopReady.abort();
    const child = this.#child;
    if (!child) return;
    killGroup(child.pid, "SIGTERM");
    const lingers = setTimeout(() => log("The function ignores SIGTERM; killing it"), STOP_GRACE_MS);
    const exit = child.exited.catch((): Exit => ({ code: 0, signal: null }));
    await Promise.race([exit, new Promise((resolve) => setTimeout(resolve, STOP_GRACE_MS))]);
    clearTimeout(lingers);
    killGroup(child.pid, "SIGKILL"); // also what it left behind
    await Promise.race([exit, new Promise((resolve) => setTimeout(resolve, KILL_MS))]);
  }

  async #watchReadiness(): Promise<void> {
    const { host, port } = this.#config.http.upstream;
    const found = await untilListening(addressesOf(host), port, this.#stopReady.signal);
    if (found === null) return;
    this.pool.host = found;
    this.#ready = true;
    log("Function is ready");
    for (const call of this.#waiting) call.begin();
    this.#waiting.clear();
  }

  #gone(): void {
    this.#ready = false;
    this.#stopReady.abort();
    if (this.#stopping) return;
    for (const call of this.#waiting) call.refuse("the function has terminated");
    this.#waiting.clear();
  }
}
