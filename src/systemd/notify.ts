import { type ChildProcess, spawn } from "node:child_process";

/** Who started napd and wants to hear how it is: systemd, by the protocol of sd_notify(3). */
export interface Notifier extends Disposable {
  /** The start is over; from here on the watchdog is fed. `status` is asked for again from time to time. */
  ready(status: () => string): void;
  reloading(): void;
  reloaded(): void;
  stopping(): void;
}

const silent: Notifier = { ready() {}, reloading() {}, reloaded() {}, stopping() {}, [Symbol.dispose]() {} };

/** How often a changed status is told where no watchdog sets the pace: ms. */
const statusMs = 10_000;

/**
 * Sends each line that it reads, as if it came from napd. Node cannot write to a datagram socket of the file system,
 * and a process that napd itself starts stops it for milliseconds; this shell is small and stays.
 */
const relay = `while IFS= read -r line; do systemd-notify --no-block "--pid=$1" "$line"; done`;

/**
 * Says how napd is to whoever `NOTIFY_SOCKET` names; without that variable nothing happens. Takes the variables of the
 * protocol out of `environment`: they are not for the programs that napd starts.
 *
 * The watchdog (`WATCHDOG_USEC`) is fed by a timer, so its food shows that the event loop turns, and nothing else. A
 * containerd that does not answer is told in the status: a new napd would find the same one, and calls would be cut.
 */
export function openNotifier(environment: NodeJS.ProcessEnv): Notifier {
  const { NOTIFY_SOCKET: to, WATCHDOG_USEC: usec, WATCHDOG_PID: watched } = environment;
  for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete environment[name];
  if (to === undefined) return silent;
  const isWatched = Number(usec) > 0 && (watched === undefined || Number(watched) === process.pid);
  return new Systemd({ ...environment, NOTIFY_SOCKET: to }, isWatched ? Number(usec) / 1000 : undefined);
}

class Systemd implements Notifier {
  readonly #environment: NodeJS.ProcessEnv;
  readonly #watchdogMs: number | undefined;
  #relay: ChildProcess | null = null;
  #timer: NodeJS.Timeout | undefined;
  #status = "";

  constructor(environment: NodeJS.ProcessEnv, watchdogMs: number | undefined) {
    this.#environment = environment;
    this.#watchdogMs = watchdogMs;
    this.#tell("starting");
  }

  ready(status: () => string): void {
    this.#send("READY=1");
    this.#tell(status());
    // a third of its time, so that one that comes late is not the last
    const every = this.#watchdogMs === undefined ? statusMs : this.#watchdogMs / 3;
    this.#timer = setInterval(() => {
      if (this.#watchdogMs !== undefined) this.#ping();
      this.#tell(status());
    }, every).unref();
  }

  reloading(): void {
    this.#send("RELOADING=1");
  }

  reloaded(): void {
    this.#send("READY=1");
  }

  stopping(): void {
    clearInterval(this.#timer);
    this.#send("STOPPING=1");
    this.#tell("requests under way end");
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#relay?.stdin?.end();
  }

  #tell(status: string): void {
    if (status === this.#status) return;
    this.#status = status;
    this.#send(`STATUS=${status.replaceAll("\n", " ")}`);
  }

  /** Not while one still waits to be taken: they would only pile up. */
  #ping(): void {
    if (!this.#relay?.stdin?.writableLength) this.#send("WATCHDOG=1");
  }

  #send(line: string): void {
    this.#relay ??= this.#startRelay();
    this.#relay.stdin!.write(`${line}\n`);
  }

  #startRelay(): ChildProcess {
    const child = spawn("/bin/sh", ["-c", relay, "napd-notify", String(process.pid)], {
      env: this.#environment,
      stdio: ["pipe", "ignore", "inherit"],
    });
    const gone = () => {
      if (this.#relay === child) this.#relay = null;
    };
    child.once("error", gone);
    child.once("exit", gone);
    child.stdin.on("error", gone);
    child.unref();
    (child.stdin as unknown as { unref(): void }).unref();
    return child;
  }
}
