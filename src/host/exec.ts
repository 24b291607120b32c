import { spawn } from "node:child_process";
import { once } from "node:events";
import { AppError, messageOf } from "../base/errors.ts";

/** How a program is run. */
export interface RunOptions {
  /** Written to standard input, which is then closed; without it standard input is empty. */
  input?: string;
  /** Milliseconds until the program and all its children are killed. @default 10_000 */
  timeoutMs?: number;
  /** Kills the program when aborted. */
  signal?: AbortSignal | undefined;
  /** Added to the fixed environment below. */
  env?: Readonly<Record<string, string>>;
}

/** What a program left behind when it ended by itself. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * A fixed environment: the daemon's own may hold credentials, a service manager's PATH often lacks sbin, and the
 * messages of the programs shall not depend on the locale.
 */
export const hostEnvironment = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

/** Bytes kept of each stream; `iptables-save` of a busy host is a few MiB, anything above is a mistake. */
const maxOutputBytes = 32 * 2 ** 20;

/**
 * Runs a program of this machine (never through a shell) and resolves with its standard output.
 * Throws HOST_COMMAND naming the command and the first lines of its standard error when it cannot be started, exits
 * with another code than 0, is ended by a signal, or outlives `timeoutMs`; the signal's reason when aborted.
 */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await execute(command, args, options);
  if (code !== 0) throw new AppError("HOST_COMMAND", [line(command, args), firstLines(stderr) || `exit code ${code}`]);
  return stdout;
}

/** As `run`, but an exit code other than 0 is a result and not an error. */
export async function execute(command: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const { input = "", timeoutMs = 10_000, signal, env } = options;
  signal?.throwIfAborted();
  const failed = (why: string, cause?: unknown) => new AppError("HOST_COMMAND", [line(command, args), why], { cause });

  // A process group of its own, so that one kill also reaches grandchildren, such as the IPAM plugin behind a CNI
  // plugin: they hold our pipes, and "close" would wait for them.
  const child = spawn(command, args, { env: { ...hostEnvironment, ...env }, stdio: "pipe", detached: true });
  let killed: AppError | undefined;
  const kill = (why?: AppError) => {
    killed ??= why;
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {} // it has just ended by itself
  };
  const collect = (stream: NodeJS.ReadableStream): Buffer[] => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    stream.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= maxOutputBytes) chunks.push(chunk);
      else kill(failed(`it printed more than ${maxOutputBytes} bytes`));
    });
    return chunks;
  };
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  child.stdin.on("error", () => {}); // a program may end without reading its input
  child.stdin.end(input);

  const timer = setTimeout(() => kill(failed(`no answer within ${timeoutMs} ms`)), timeoutMs);
  const onAbort = () => kill();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const [code, ended] = (await once(child, "close")) as [number | null, string | null];
    if (signal?.aborted && ended !== null) throw signal.reason;
    if (killed) throw killed;
    const errors = Buffer.concat(stderr).toString();
    if (code === null) throw failed(`ended by ${ended}${errors && `: ${firstLines(errors)}`}`);
    return { code, stdout: Buffer.concat(stdout).toString(), stderr: errors };
  } catch (e) {
    if (e instanceof AppError || e === signal?.reason) throw e;
    throw failed(messageOf(e), e); // "error" instead of "close": it could not be started
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

function line(command: string, args: readonly string[]): string {
  return [command, ...args].join(" ").slice(0, 200);
}

/** At most three lines and 500 characters: enough to say why, short enough for an answer to a caller. */
function firstLines(text: string): string {
  return text.trim().split("\n", 3).join("; ").slice(0, 500);
}
