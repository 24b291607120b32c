import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { AppError, messageOf } from "../base/errors.ts";
import type { Config } from "./config.ts";
import { log } from "./log.ts";

/**
 * The lock file and what it stands for. Healthy = started, not stopping, and the lock file is there at this moment:
 * removing the file is how an operator takes an instance out (contracts/watchdog.md §1.5). With suppress_lock there
 * is no file to ask; health then follows the process alone (in the reference it is 503 for ever: §5, 11).
 */
export class Health {
  readonly #lockFile: string;
  readonly #suppressed: boolean;
  #accepting = false;

  constructor(config: Pick<Config, "lockFile" | "suppressLock">) {
    this.#lockFile = config.lockFile;
    this.#suppressed = config.suppressLock;
  }

  /** Goes up. Throws AppError CONFIG when the lock file cannot be written. */
  up(): void {
    if (this.#suppressed) {
      log(`Warning: "suppress_lock" is enabled. No automated health-checks will be in place for your function.`);
    } else {
      log(`Writing lock-file to: ${this.#lockFile}`);
      writeLock(this.#lockFile);
    }
    this.#accepting = true;
  }

  /** Goes down for good, and removes the lock file. Can be repeated. */
  down(): void {
    if (!this.#accepting) return;
    this.#accepting = false;
    if (this.#suppressed) return;
    log(`Removing lock-file : ${this.#lockFile}`);
    rmSync(this.#lockFile, { force: true });
  }

  get ok(): boolean {
    return this.#accepting && (this.#suppressed || existsSync(this.#lockFile));
  }
}

function writeLock(file: string): void {
  try {
    mkdirSync(file.slice(0, file.lastIndexOf("/")) || "/", { recursive: true });
    writeFileSync(file, "", { mode: 0o660 });
  } catch (e) {
    throw new AppError("CONFIG", [
      `cannot write lock-file ${file}: ${messageOf(e)}; set TMPDIR to a writable folder, or suppress_lock=true`,
    ]);
  }
}

/** What `--run-healthcheck` answers: whether the lock file is there. */
export function lockExists(env: Record<string, string | undefined>): boolean {
  return existsSync(`${env.TMPDIR || "/tmp"}/.lock`);
}
