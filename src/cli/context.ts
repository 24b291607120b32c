import { isUtf8 } from "node:buffer";
import { addAbortSignal, type Readable, type Writable } from "node:stream";
import { Failure } from "./failure.ts";

/** A stream that people may be reading. */
export interface Output extends Writable {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
}

/** What a command has of the world around it; tests give it another. */
export interface Context {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly stdin: Readable & { readonly isTTY?: boolean; setRawMode?(on: boolean): unknown };
  readonly stdout: Output;
  readonly stderr: Output;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  version(): Promise<string>;
}

/** Whether each request is told, and where an unexpected failure came from; the variable is that of faas-cli. */
export const isTraced = ({ env }: Context): boolean => env.FAAS_DEBUG === "1";

/** All of standard input; Ctrl-C ends the wait for it. */
export async function readInput({ stdin, signal }: Context): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of addAbortSignal(signal, stdin)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** A password: text, without blanks and line ends around it. */
export async function readPassword(context: Context): Promise<string> {
  const bytes = await readInput(context);
  if (!isUtf8(bytes)) throw new Failure("the password on standard input is not in UTF-8", 2);
  return bytes.toString().trim();
}

/** A line that is typed and not shown. */
export async function readHidden(context: Context, question: string): Promise<string> {
  const { stdin, stderr, signal } = context;
  stderr.write(question);
  stdin.setRawMode?.(true);
  try {
    let line = "";
    for await (const piece of addAbortSignal(signal, stdin))
      for (const key of String(piece)) {
        if (key === "\r" || key === "\n" || key === "\x04") return line;
        // Ctrl-C comes as a key now
        if (key === "\x03") throw new Failure("", 130);
        line = key === "\x7f" || key === "\b" ? line.slice(0, -1) : line + key;
      }
    return line;
  } finally {
    stdin.setRawMode?.(false);
    stderr.write("\n");
  }
}
