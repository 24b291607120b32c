import { extname, join } from "node:path";
import { Worker } from "node:worker_threads";
import { AppError, messageOf } from "../base/errors.ts";
import type { Reply, Request } from "./sqlite-worker.ts";
import type { QueueStore } from "./store.ts";

type Method = Request["method"];
type Result<M extends Method> = Awaited<ReturnType<QueueStore[M]>>;

interface Waiting {
  resolve(value: never): void;
  reject(error: Error): void;
}

/** The queue in `queue.db` of the data directory, with large bodies beside it in `queue/`. Fails with STORE. */
export class SqliteStore implements QueueStore {
  readonly isShared = false;
  readonly #file: string;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #exited: Promise<void>;
  #outbox: Request[] = [];
  #lastId = 0;
  /** Why nothing can be asked any more. */
  #broken: AppError | null = null;

  private constructor(file: string, worker: Worker) {
    this.#file = file;
    this.#worker = worker;
    this.#exited = new Promise((resolve) => worker.once("exit", () => resolve()));
    worker.on("message", (replies: Reply[]) => this.#answered(replies));
    worker.on("error", (cause) => this.#break(messageOf(cause)));
    worker.on("exit", () => this.#break("its thread has ended"));
  }

  static async open(dataDir: string): Promise<SqliteStore> {
    const file = join(dataDir, "queue.db");
    const workerData = { file, bodiesDir: bodiesDir(dataDir) };
    // beside this file in a checkout, beside the bundle in a release
    const thread = new URL(`./sqlite-worker${extname(import.meta.url)}`, import.meta.url);
    const worker = new Worker(thread, { workerData });
    const store = new SqliteStore(file, worker);
    await new Promise<void>((resolve, reject) => {
      worker.once("message", () => resolve());
      worker.once("exit", () => reject(store.#broken));
    });
    return store;
  }

  watch() {}

  put(...args: Parameters<QueueStore["put"]>) {
    return this.#ask("put", args);
  }
  take(...args: Parameters<QueueStore["take"]>) {
    return this.#ask("take", args);
  }
  settle(...args: Parameters<QueueStore["settle"]>) {
    return this.#ask("settle", args);
  }
  depths() {
    return this.#ask("depths", []);
  }
  list(...args: Parameters<QueueStore["list"]>) {
    return this.#ask("list", args);
  }
  remove(...args: Parameters<QueueStore["remove"]>) {
    return this.#ask("remove", args);
  }
  revive(...args: Parameters<QueueStore["revive"]>) {
    return this.#ask("revive", args);
  }
  bury(...args: Parameters<QueueStore["bury"]>) {
    return this.#ask("bury", args);
  }

  /** What was asked for before is done. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#post();
    this.#worker.postMessage(null);
    await this.#exited;
  }

  #ask<M extends Method>(method: M, args: readonly unknown[]): Promise<Result<M>> {
    if (this.#broken) return Promise.reject(this.#broken);
    const id = ++this.#lastId;
    // one message for all that this turn of the event loop asks for
    if (this.#outbox.length === 0) setImmediate(() => this.#post());
    this.#outbox.push({ id, method, args });
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #post(): void {
    if (this.#outbox.length === 0) return;
    this.#worker.postMessage(this.#outbox);
    this.#outbox = [];
  }

  #answered(replies: readonly Reply[]): void {
    for (const { id, value, error } of replies) {
      const waiting = this.#waiting.get(id)!;
      this.#waiting.delete(id);
      if (!error) waiting.resolve(value as never);
      else waiting.reject(error.full ? new AppError("DISK_FULL", ["the queue"]) : this.#error(error.message));
    }
  }

  #break(why: string): void {
    this.#broken ??= this.#error(why);
    for (const { reject } of this.#waiting.values()) reject(this.#broken);
    this.#waiting.clear();
  }

  #error(why: string): AppError {
    return new AppError("QUEUE_STORE", [this.#file, why]);
  }
}

/** Where bodies are that are too large for a row. */
export function bodiesDir(dataDir: string): string {
  return join(dataDir, "queue");
}
