/**
 * `npm test`: the tests that need nothing, then those that need the machine (containerd, network namespaces), two
 * files at a time: most of their time is waiting. Words among the arguments choose files whose path has one of them; arguments
 * with a dash go to `node --test`:
 *
 *   npm test -- registry --test-name-pattern=token
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { globSync } from "node:fs";

process.chdir(`${import.meta.dirname}/..`);
const flags = process.argv.slice(2).filter((arg) => arg.startsWith("-"));
const words = process.argv.slice(2).filter((arg) => !arg.startsWith("-"));

const files = globSync("test/**/*.test.ts").sort();
const chosen = files.filter((file) => words.length === 0 || words.some((word) => file.includes(word)));
const system = chosen.filter((file) => file.startsWith("test/system/"));
const others = chosen.filter((file) => !file.startsWith("test/system/"));
/** They build the watchdog, also anew, for which the others would have to wait. */
const isBuilder = (file: string) => /\/watchdog-(builds|arm64)\./.test(file);
const builders = system.filter(isBuilder);
const sharers = system.filter((file) => !isBuilder(file));

// Ctrl-C reaches the runner as well: it ends its files, and we wait for it.
let stopping = false;
process.on("SIGINT", () => {
  stopping = true;
});

if (chosen.length === 0) fail(`no test file has ${words.join(" or ")} in its path`);
// Time limits are for whole files, and only there so that one that hangs is told from one that works.
await runTests(others, ["--test-timeout=300000"]);
const limit = "--test-timeout=1200000";
await runTests(builders, [limit, "--test-concurrency=1"]);
await runTests(sharers, [limit, "--test-concurrency=2"]);

async function runTests(list: string[], options: string[]): Promise<void> {
  if (list.length === 0 || stopping) return;
  const args = ["--test", "--test-reporter=spec", ...options, ...flags, ...list];
  const runner = spawn(process.execPath, args, { stdio: "inherit" });
  const forward = () => {
    stopping = true;
    runner.kill("SIGTERM");
  };
  process.on("SIGTERM", forward);
  const [code] = await once(runner, "exit");
  process.off("SIGTERM", forward);
  if (code !== 0) process.exitCode = 1;
}

function fail(why: string): void {
  console.error(`napd: ${why}`);
  process.exitCode = 1;
}
