import { addAbortSignal, type Readable, type Writable } from "node:stream";

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
  readonly stdin: Readable & { readonly isTTY?: boolean };
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
