/**
 * What this program uses of Bun, and nothing more. The binary in a container is Bun; tests also run the same sources
 * on Node, where `bun` is undefined and the portable way is taken.
 */
interface Bun {
  spawn(options: BunSpawnOptions): BunProcess;
  /** Collects garbage and gives the pages back. */
  gc(synchronously: boolean): void;
  /** Reads a file descriptor without blocking a thread. It works on a duplicate: the caller still owns `fd`. */
  file(fd: number): { stream(): ReadableStream<Uint8Array>; writer(): BunSink };
  listen<T>(options: BunSocketOptions<T> & { exclusive: boolean }): BunListener;
  connect<T>(options: BunSocketOptions<T> & { data: T }): Promise<unknown>;
}

interface BunSocketOptions<T> {
  hostname: string;
  port: number;
  allowHalfOpen: boolean;
  socket: BunSocketHandlers<T>;
}

/** What happens to a socket. Bun calls `drain` also when nothing was refused. */
export interface BunSocketHandlers<T> {
  open(socket: BunSocket<T>): void;
  data(socket: BunSocket<T>, bytes: Buffer): void;
  drain(socket: BunSocket<T>): void;
  end(socket: BunSocket<T>): void;
  close(socket: BunSocket<T>, error?: Error): void;
  connectError(socket: BunSocket<T>, error: Error): void;
  error(socket: BunSocket<T>, error: Error): void;
}

export interface BunSocket<T> {
  data: T;
  readonly localAddress?: string;
  readonly localPort?: number;
  readonly remoteAddress?: string;
  readonly remotePort?: number;
  /** The bytes that the kernel took; less than 0 when the socket is closed. */
  write(bytes: Uint8Array, offset?: number, length?: number): number;
  /** Sends FIN. */
  shutdown(): void;
  /** Closes at once. */
  end(): void;
  /** Closes at once, with RST. */
  terminate(): void;
  pause(): void;
  resume(): void;
}

interface BunListener {
  readonly port: number;
  stop(closeConnections: boolean): void;
  unref(): void;
}

/** Writes without blocking; a promise says that the other side takes no more for now. */
export interface BunSink {
  write(piece: Uint8Array): number | Promise<number>;
  flush(): number | Promise<number>;
  end(): number | Promise<number>;
}

interface BunSpawnOptions {
  cmd: string[];
  env: Record<string, string>;
  stdio: [number, number, number];
  /** Own session and process group, so that `kill(-pid)` reaches the whole family. */
  detached: boolean;
  onExit(process: BunProcess, code: number | null, signal: NodeJS.Signals | null): void;
}

interface BunProcess {
  pid: number;
}

interface ForeignLibrary {
  symbols: Record<string, (...args: (number | ArrayBufferView | null)[]) => number>;
}

interface BunForeign {
  dlopen(name: string, symbols: Record<string, { args: string[]; returns: string }>): ForeignLibrary;
}

export const bun: Bun | undefined = (globalThis as { Bun?: Bun }).Bun;

/** Bun's foreign function interface; undefined on Node. Asked for by name so that Node never tries to resolve it. */
export function foreign(): BunForeign | undefined {
  return bun && (process.getBuiltinModule as (name: string) => BunForeign | undefined)("bun:ffi");
}

// Set by scripts/build-watchdog.ts (bun build --define); absent when the sources run as they are.
declare const FWATCHDOG_VERSION: string | undefined;

/** Version of this program, `dev` when it was not stamped. */
export const version: string = typeof FWATCHDOG_VERSION === "string" ? FWATCHDOG_VERSION : "dev";
