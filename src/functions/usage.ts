import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type FunctionId, keyOf } from "../base/names.ts";
import { type Backend, replicaId } from "./backend.ts";
import type { Table } from "./table.ts";

/** `usage` of contracts/api.md §2.1: the sum over a function's replicas. */
export interface FunctionUsage {
  /** Thousandths of a core, over the time between the last two samples. */
  readonly cpu: number;
  /** Working set. */
  readonly totalMemoryBytes: number;
}

/** What metrics show of a function. */
export interface FunctionTotals extends FunctionId {
  /** Since napd was started; never goes back, whatever replicas come and go. */
  readonly cpuSeconds: number;
  /** Working set. */
  readonly memoryBytes: number;
}

export interface UsageOptions {
  backend: Pick<Backend, "stats">;
  /** Functions that are not in it any more are forgotten. */
  table: Pick<Table, "has">;
  clock: Clock;
  log: Logger;
}

/** Between two samples that nobody asked for. */
const sampleMs = 10_000;
/** However many ask, so much lies between two samples: a shorter time says little, and each sample has its price. */
const freshMs = 1_000;

interface Used {
  readonly id: FunctionId;
  cpu: number;
  totalMemoryBytes: number;
  cpuNanoseconds: number;
}

/** Makes rates of what replicas have used: samples every ten seconds, and for those who ask at most every second. */
export class Usage implements AsyncDisposable {
  readonly #o: UsageOptions;
  readonly #functions = new Map<string, Used>();
  /** CPU time of each replica at the last sample. */
  #replicas = new Map<string, number>();
  /** Of the last sample; null before the first. Monotonic ms. */
  #at: number | null = null;
  #sampling: Promise<void> | null = null;
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;

  constructor(options: UsageOptions) {
    this.#o = options;
    this.#loop = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    await this.#sampling;
  }

  /** As of now, give or take a second. A function without replicas uses nothing. */
  async of(id: FunctionId): Promise<FunctionUsage> {
    await this.#sample();
    return this.last(id);
  }

  /** As of the last sample: at once, at most about ten seconds old. */
  last(id: FunctionId): FunctionUsage {
    const used = this.#functions.get(keyOf(id));
    return { cpu: Math.round((used?.cpu ?? 0) * 1000) / 1000, totalMemoryBytes: used?.totalMemoryBytes ?? 0 };
  }

  /** Of every function that has had a replica. */
  totals(): FunctionTotals[] {
    return [...this.#functions.values()].map(({ id, totalMemoryBytes, cpuNanoseconds }) => ({
      ...id,
      cpuSeconds: cpuNanoseconds / 1e9,
      memoryBytes: totalMemoryBytes,
    }));
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#sample();
      await this.#o.clock.sleep(sampleMs, signal).catch(() => {});
    }
  }

  /** One at a time; a fresh one is not taken again. When it fails, what was known stays. */
  #sample(): Promise<void> {
    const age = this.#at === null ? Number.POSITIVE_INFINITY : this.#o.clock.monotonic() - this.#at;
    if (age < freshMs) return Promise.resolve();
    this.#sampling ??= this.#take()
      .catch((e) => this.#o.log.warn({ err: messageOf(e) }, "usage of functions could not be read"))
      .finally(() => {
        this.#sampling = null;
      });
    return this.#sampling;
  }

  async #take(): Promise<void> {
    const stats = await this.#o.backend.stats();
    const now = this.#o.clock.monotonic();
    const before = this.#at;
    const replicas = new Map<string, number>();
    for (const [key, used] of this.#functions) {
      if (!this.#o.table.has(key)) this.#functions.delete(key);
      used.cpu = 0;
      used.totalMemoryBytes = 0;
    }
    for (const { name, namespace, generation, number, cpuNanoseconds, memoryBytes } of stats) {
      const id = { name, namespace };
      if (!this.#o.table.has(keyOf(id))) continue;
      const replica = `${namespace}/${replicaId({ ...id, generation, number })}`;
      replicas.set(replica, cpuNanoseconds);
      const used = this.#used(id);
      used.totalMemoryBytes += memoryBytes;
      // What there was at the first sample was used before anybody measured. A replica that was not there at the last
      // sample has used all it has since then; one that has used less than before was started anew under its old id.
      const last = this.#replicas.get(replica) ?? 0;
      const spent = cpuNanoseconds < last ? cpuNanoseconds : cpuNanoseconds - last;
      if (before === null) continue;
      used.cpuNanoseconds += spent;
      used.cpu += spent / 1e3 / (now - before); // ns per ms is a millionth of a core
    }
    this.#replicas = replicas;
    this.#at = now;
  }

  #used(id: FunctionId): Used {
    const key = keyOf(id);
    const used = this.#functions.get(key) ?? { id, cpu: 0, totalMemoryBytes: 0, cpuNanoseconds: 0 };
    this.#functions.set(key, used);
    return used;
  }
}
