import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { hostEnvironment } from "./exec.ts";

/** Without work for so long the helper ends, ms. */
const idleMs = 10_000;

/** One job is two lines, its length and the file; one line answers: the exit code and what was said. */
const script = `while IFS= read -r length && IFS= read -r file; do
  said=$(fallocate --punch-hole --offset 0 --length "$length" "$file" 2>&1 </dev/null)
  echo "$? $said"
done`;

interface Helper {
  readonly child: ChildProcessByStdio<Writable, Readable, null>;
  readonly answers: Interface;
}

/**
 * Frees the beginning of files with util-linux' fallocate, since Node has no call for it. To start a program stops a
 * process of our size for some 5 ms, and with it every request, while a flood of output wants dozens of holes a second:
 * so a small shell starts them for us. It ends with our end of its pipe, whatever becomes of us.
 */
export class HolePuncher implements Disposable {
  #helper: Helper | null = null;
  #jobs: { length: number; file: string; resolve: () => void; reject: (e: unknown) => void }[] = [];
  #idle: NodeJS.Timeout | undefined;

  /** Makes a hole of the first `length` bytes; the file's size stays. */
  punch(file: string, length: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (file.includes("\n")) throw new Error("a path with a line end cannot be handed on");
      clearTimeout(this.#idle);
      this.#jobs.push({ length, file, resolve, reject });
      this.#helper ??= this.#start();
      this.#helper.child.stdin.write(`${length}\n${file}\n`);
    });
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#idle);
    this.#end(new Error("no more holes"));
  }

  #start(): Helper {
    const child = spawn("sh", ["-c", script], { env: hostEnvironment, stdio: ["pipe", "pipe", "ignore"] });
    const helper = { child, answers: createInterface({ input: child.stdout }) };
    const lost = (e: unknown) => this.#helper === helper && this.#end(e);
    child.on("error", lost);
    child.on("exit", (code) => lost(new Error(`the shell for fallocate ended with ${code}`)));
    child.stdin.on("error", lost);
    helper.answers.on("line", (line) => this.#helper === helper && this.#answered(line));
    return helper;
  }

  #answered(line: string): void {
    const [, code, said] = /^(\d+) (.*)$/.exec(line) ?? [];
    if (code === undefined) return; // a second line of what a failing one says
    const job = this.#jobs.shift();
    if (code === "0") job?.resolve();
    else job?.reject(new Error(`fallocate: ${said || `exit code ${code}`}`));
    if (this.#jobs.length === 0) this.#idle = setTimeout(() => this.#end(new Error("idle")), idleMs).unref();
  }

  #end(reason: unknown): void {
    const helper = this.#helper;
    this.#helper = null;
    helper?.child.stdin.end();
    helper?.answers.close();
    for (const job of this.#jobs.splice(0)) job.reject(reason);
  }
}
