import { spawn } from "node:child_process";
import { access, constants, stat } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";

export interface ProgramOptions {
  readonly cwd?: string;
  /** Over those of nap itself. */
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  /** Each line of both outputs, as it comes. */
  readonly onLine?: (line: string) => void;
  /** Gives up after so long. */
  readonly timeoutMs?: number;
}

export interface Ended {
  /** Exit code, or `128 + signal` as shells have it. */
  readonly code: number;
  readonly stdout: string;
  /** The last lines of both outputs, in the order they came. */
  readonly tail: readonly string[];
}

const tailLength = 40;

/** Where a program is: a path as it is, a name by PATH. */
export async function findProgram({ env, cwd }: Context, name: string): Promise<string | undefined> {
  const places = name.includes("/")
    ? [join(name.startsWith("/") ? "" : cwd, name)]
    : (env.PATH ?? "/usr/local/bin:/usr/bin:/bin").split(":").map((dir) => join(dir || cwd, name));
  for (const path of places)
    if ((await stat(path).catch(() => undefined))?.isFile())
      if (
        await access(path, constants.X_OK).then(
          () => true,
          () => false,
        )
      )
        return path;
  return undefined;
}

/** Runs a program to its end, whatever that is; Ctrl-C ends it. */
export async function runProgram(
  context: Context,
  program: string,
  args: readonly string[],
  { cwd = context.cwd, env = {}, stdin, onLine = () => {}, timeoutMs }: ProgramOptions = {},
): Promise<Ended> {
  const child = spawn(program, args, {
    cwd,
    env: { ...context.env, ...env },
    signal: context.signal,
    ...(timeoutMs !== undefined && { timeout: timeoutMs }),
  });
  let stdout = "";
  const tail: string[] = [];
  const follow = async (stream: NodeJS.ReadableStream, each: (line: string) => void) => {
    for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
      each(line);
      if (line.trim() === "") continue;
      tail.push(line);
      if (tail.length > tailLength) tail.shift();
      onLine(line);
    }
  };
  child.stdin.on("error", () => {}); // it may end without reading
  child.stdin.end(stdin);
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", (e) =>
      reject(context.signal.aborted ? e : new Failure(`${program} cannot be run: ${e.message}`)),
    );
    child.once("close", (code, signal) => resolve(code ?? (signal ? 137 : 1)));
  });
  const [code] = await Promise.all([
    ended,
    follow(child.stdout, (line) => {
      stdout += `${line}\n`;
    }),
    follow(child.stderr, () => {}),
  ]);
  return { code, stdout, tail };
}

/** Runs a program that people talk with: what it says goes to nap's own outputs, what they type to it. */
export async function runInForeground(context: Context, program: string, args: readonly string[]): Promise<number> {
  const child = spawn(program, args, { cwd: context.cwd, env: { ...context.env } });
  // it is asked to end, and heard out: a container has to go with it
  const leave = () => child.kill("SIGTERM");
  context.signal.addEventListener("abort", leave, { once: true });
  child.stdin.on("error", () => {});
  context.stdin.pipe(child.stdin);
  child.stdout.pipe(context.stdout, { end: false });
  child.stderr.pipe(context.stderr, { end: false });
  try {
    return await new Promise<number>((resolve, reject) => {
      child.once("error", (e) => reject(new Failure(`${program} cannot be run: ${e.message}`)));
      child.once("close", (code) => resolve(code ?? 137));
    });
  } finally {
    context.signal.removeEventListener("abort", leave);
    context.stdin.unpipe(child.stdin);
  }
}
