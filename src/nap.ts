#!/usr/bin/env node
import { readFile } from "node:fs/promises";
import { enableCompileCache } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

// what is imported from here on is compiled once: without that, half the time of a short command goes there
enableCompileCache(join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "nap"));
const { runCommandLine } = await import("./cli/main.ts");

const leaving = new AbortController();
process.once("SIGINT", () => leaving.abort());
// whoever reads our output may have enough of it, as `nap list | head` has; a full disk is something else
process.stdout.on("error", (e: NodeJS.ErrnoException) => {
  if (e.code === "EPIPE") process.exit(0);
  process.stderr.write(`nap: standard output cannot be written: ${e.message}\n`, () => process.exit(1));
});
process.stderr.on("error", () => {});

process.exitCode = await runCommandLine(process.argv.slice(2), {
  env: process.env,
  cwd: process.cwd(),
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  signal: leaving.signal,
  version: async () => JSON.parse(await readFile(join(import.meta.dirname, "../package.json"), "utf8")).version,
});
// a connection that a gateway keeps open, or an input that nobody ends, keeps nobody waiting
process.stdout.write("", () => process.exit());
