import { messageOf } from "../base/errors.ts";
import { ConfigError, readConfig } from "./config.ts";
import { lockExists } from "./health.ts";
import { exit, runWatchdog } from "./lifecycle.ts";
import { log, stderr } from "./log.ts";
import { version } from "./runtime.ts";

const usage = `Usage of fwatchdog:
  -run-healthcheck
    \tCheck for the a lock-file, when using an exec healthcheck. Exit 0 for present, non-zero when not found.
  -version
    \tPrint the version and exit
`;

/** Flags come with one dash or two (contracts/watchdog.md §1.3). */
function main(args: readonly string[]): void {
  const flag = args[0]?.replace(/^--?/, "-");
  if (flag === "-version") printVersion();
  else if (flag === "-run-healthcheck") runHealthcheck();
  else if (flag === "-h" || flag === "-help") say(usage, 0);
  else if (flag?.startsWith("-")) say(`flag provided but not defined: ${flag}\n${usage}`, 2);
  else serve();
}

function printVersion(): void {
  log(`Version: ${version}\tSHA: unknown`);
  exit(0);
}

function runHealthcheck(): void {
  if (lockExists(process.env)) exit(0);
  say("unable to find lock file.\n", 1);
}

function say(text: string, code: number): never {
  void stderr.write(text);
  exit(code);
}

function serve(): void {
  // A bug that concerns one call must not end the others; its connection is gone already.
  process.on("uncaughtException", (e) => log(`internal error: ${e instanceof Error ? e.stack : e}`));
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) if (value !== undefined) environment[name] = value;
  try {
    void runWatchdog(readConfig(environment, process.argv0), environment);
  } catch (e) {
    log(`Error loading config: ${messageOf(e)}`);
    exit(e instanceof ConfigError ? e.exitCode : 1);
  }
}

main(process.argv.slice(2));
