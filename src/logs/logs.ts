import { mkdir, readdir, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { messageOf, systemCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type FunctionId, keyOf } from "../base/names.ts";
import { type LogLine, type LogQuery, type ReplicaIdentity, replicaId } from "../functions/backend.ts";
import { followGrowth } from "./growth.ts";
import { LogFile, type Punch } from "./log-file.ts";
import { type Group, readLogs } from "./read.ts";
import { excess, outdated } from "./retention.ts";

export interface LogsOptions {
  /** Holds `NAMESPACE/NAME/GENERATION.NUMBER.log` and, beside each, `….times`. */
  dir: string;
  /** Bytes that the log of one replica may take. */
  maxFileBytes: number;
  /** Bytes that all of them may take. */
  maxTotalBytes: number;
  /** Bytes that are left free on the file system. */
  minFreeBytes: number;
  punch: Punch;
  clock: Clock;
  log: Logger;
}

/** What a replica that runs may keep while the disk is nearly full, bytes. */
const scarceBytes = 256 * 1024;
/** How often the free space is looked at, ms. */
const spaceMs = 5000;
/** Deleted functions of which it is still known that they were. */
const maxForgotten = 1000;

interface Followed {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

interface OpenGroup extends Group {
  readonly files: Map<string, LogFile>;
  /** A replica has begun here; else somebody only waits for one. */
  isReal: boolean;
}

/**
 * What functions say. containerd's shims write the files, whether napd runs or not; this keeps them within their
 * limits, knows when each line was written, and reads them.
 */
export class Logs implements AsyncDisposable {
  readonly #o: LogsOptions;
  readonly #groups = new Map<string, OpenGroup>();
  readonly #followed = new Map<LogFile, Followed>();
  readonly #active = { count: 0 };
  readonly #closing = new AbortController();
  #guard: Promise<void> = Promise.resolve();
  #trimming: Promise<void> | null = null;
  /** Bytes that came since the sum was last checked. */
  #unchecked = 0;
  #scarce = false;
  /** Of what an earlier napd left it is known who still writes. */
  #isSorted = false;

  private constructor(options: LogsOptions) {
    this.#o = options;
  }

  static async open(options: LogsOptions): Promise<Logs> {
    const logs = new Logs(options);
    await mkdir(options.dir, { recursive: true, mode: 0o700 });
    for (const namespace of await entries(options.dir))
      for (const name of await entries(join(options.dir, namespace))) await logs.#load({ namespace, name });
    logs.#isSorted = logs.#groups.size === 0;
    logs.#guard = logs.#guardSpace();
    return logs;
  }

  /** Stops watching; what functions say from now on gets its time at the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error("logs are closed"));
    await Promise.all([...this.#followed.keys()].map((file) => this.#unfollow(file)));
    await this.#guard;
  }

  fileOf(replica: ReplicaIdentity): string {
    return join(this.#o.dir, replica.namespace, replica.name, `${replica.generation}.${replica.number}.log`);
  }

  /** Makes the file for a replica that starts; one that starts again goes on in its old one. */
  async begin(replica: ReplicaIdentity): Promise<void> {
    const group = this.#group(replica);
    const file = group.files.get(replicaId(replica)) ?? this.#file(replica);
    await file.create();
    group.isReal = true;
    group.files.set(file.instance, file);
    this.#follow(file);
    tell(group);
  }

  /** A replica is gone and its file is complete. Idempotent. */
  async end(replica: ReplicaIdentity): Promise<void> {
    const group = this.#groups.get(keyOf(replica));
    const file = group?.files.get(replicaId(replica));
    if (!group || !file?.live) return;
    await this.#unfollow(file);
    tell(group);
    for (const old of outdated([...group.files.values()])) await this.#remove(old);
  }

  /** Takes over the logs of replicas that run, ends the others, and removes what belongs to no function. */
  async sweep(live: readonly ReplicaIdentity[], functions: readonly FunctionId[]): Promise<void> {
    const living = new Set(live.map((r) => `${keyOf(r)} ${replicaId(r)}`));
    const kept = new Set(functions.map(keyOf));
    const adopt = async (file: LogFile) => {
      await file.refresh(); // what was said while nobody watched has a time of its own
      this.#follow(file);
    };
    const adopted: Promise<void>[] = [];
    for (const [key, group] of [...this.#groups]) {
      if (!kept.has(key)) await this.forget(group);
      for (const file of [...group.files.values()]) {
        if (living.has(`${key} ${file.instance}`)) adopted.push(adopt(file));
        else await this.end(file.identity);
      }
    }
    await Promise.all(adopted);
    for (const group of this.#groups.values())
      for (const old of outdated([...group.files.values()])) await this.#remove(old);
    this.#isSorted = true;
    await this.#trim();
  }

  /** Removes what a function has said. Its empty directory stays, so that it is known to have been. Idempotent. */
  async forget(fn: FunctionId): Promise<void> {
    const group = this.#groups.get(keyOf(fn));
    if (!group) return;
    for (const file of [...group.files.values()]) {
      await this.#unfollow(file);
      await this.#remove(file);
    }
    const dir = join(this.#o.dir, fn.namespace, fn.name);
    for (const other of await entries(dir)) await rm(join(dir, other), { recursive: true, force: true });
    this.#groups.delete(keyOf(fn)); // to the end of the list, which is the newest
    this.#groups.set(keyOf(fn), group);
    await this.#forgetOldest();
  }

  /** Removes all that there is of a namespace. Idempotent. */
  async forgetNamespace(namespace: string): Promise<void> {
    for (const [key, group] of [...this.#groups]) {
      if (group.namespace !== namespace) continue;
      await this.forget(group);
      if (group.listeners.size === 0) this.#groups.delete(key);
      group.isReal = false;
    }
    await rm(join(this.#o.dir, namespace), { recursive: true, force: true });
  }

  /** Whether the function has ever run here. */
  remembers(fn: FunctionId): boolean {
    return this.#groups.get(keyOf(fn))?.isReal ?? false;
  }

  /** See Backend.logs. */
  async *lines(query: LogQuery, signal: AbortSignal): AsyncGenerator<LogLine, void> {
    const group = this.#group(query);
    try {
      yield* readLogs(group, query, AbortSignal.any([signal, this.#closing.signal]));
    } finally {
      if (!group.isReal && group.listeners.size === 0) this.#groups.delete(keyOf(query));
    }
  }

  // --- files -----------------------------------------------------------------------------------------------------

  async #load(fn: FunctionId): Promise<void> {
    const group = this.#group(fn);
    group.isReal = true;
    for (const entry of await entries(join(this.#o.dir, fn.namespace, fn.name))) {
      const match = /^(\d+)\.(\d+)\.log$/.exec(entry);
      if (!match) continue;
      const file = this.#file({ ...fn, generation: Number(match[1]), number: Number(match[2]) });
      await file.measure();
      group.files.set(file.instance, file);
    }
  }

  #group({ name, namespace }: FunctionId): OpenGroup {
    const key = keyOf({ name, namespace });
    let group = this.#groups.get(key);
    if (!group) {
      group = { name, namespace, files: new Map(), listeners: new Set(), isReal: false };
      this.#groups.set(key, group);
    }
    return group;
  }

  #file({ name, namespace, generation, number }: ReplicaIdentity): LogFile {
    const identity = { name, namespace, generation, number };
    return new LogFile(identity, this.fileOf(identity), this.#o.punch, this.#o.log);
  }

  #follow(file: LogFile): void {
    if (this.#followed.has(file)) return;
    file.live = true;
    const stop = new AbortController();
    const { clock, log } = this.#o;
    const ended = followGrowth(
      file,
      {
        ...{ clock, log, active: this.#active },
        onGrowth: (grown, bytes) => this.#grew(grown, bytes),
        stepBytes: () => this.#limit() / 4,
      },
      stop.signal,
    );
    this.#followed.set(file, { stop, ended });
  }

  async #unfollow(file: LogFile): Promise<void> {
    const followed = this.#followed.get(file);
    if (!followed) return;
    followed.stop.abort(new Error("no longer followed"));
    await followed.ended;
    this.#followed.delete(file);
    await file.refresh();
    await file.save();
    file.live = false; // from now on a line without an end counts as whole
  }

  async #remove(file: LogFile): Promise<void> {
    await file.remove();
    const group = this.#groups.get(keyOf(file.identity));
    group?.files.delete(file.instance);
    if (group) tell(group);
  }

  async #forgetOldest(): Promise<void> {
    const idle = [...this.#groups].filter(([, g]) => g.isReal && g.files.size === 0 && g.listeners.size === 0);
    for (const [key, { namespace, name }] of idle.slice(0, Math.max(0, idle.length - maxForgotten))) {
      this.#groups.delete(key);
      await rm(join(this.#o.dir, namespace, name), { recursive: true, force: true });
    }
  }

  // --- limits ----------------------------------------------------------------------------------------------------

  #limit(): number {
    return this.#scarce ? Math.min(scarceBytes, this.#o.maxFileBytes) : this.#o.maxFileBytes;
  }

  async #grew(file: LogFile, bytes: number): Promise<void> {
    const limit = this.#limit();
    if (file.size - file.start > limit) await file.cut(limit * 0.75);
    this.#unchecked += bytes;
    if (this.#unchecked > this.#o.maxTotalBytes / 100) await this.#trim();
    tell(this.#group(file.identity));
  }

  /** Brings the sum of all logs below its limit, one at a time. */
  #trim(): Promise<void> {
    this.#trimming ??= this.#trimNow().finally(() => {
      this.#trimming = null;
    });
    return this.#trimming;
  }

  async #trimNow(): Promise<void> {
    this.#unchecked = 0;
    if (!this.#isSorted) return;
    const files = [...this.#groups.values()].flatMap((g) => [...g.files.values()]);
    const { remove, share } = excess(files, this.#scarce ? 0 : this.#o.maxTotalBytes);
    for (const file of remove) await this.#remove(file);
    const most = Math.max(this.#scarce ? scarceBytes : 0, share);
    for (const file of files) if (file.live && file.heldBytes > most) await file.cut(most);
  }

  /** A write that fails because the disk is full ends a shim's copying for good, so it must not come to that. */
  async #guardSpace(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        await this.#checkSpace();
      } catch (e) {
        this.#o.log.warn({ dir: this.#o.dir, err: messageOf(e) }, "the free space for logs cannot be read");
      }
      await this.#o.clock.sleep(spaceMs, signal).catch(() => {});
    }
  }

  async #checkSpace(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#o.dir);
    const freeBytes = bavail * bsize;
    const scarce = freeBytes < this.#o.minFreeBytes;
    if (scarce !== this.#scarce)
      this.#o.log.warn(
        { dir: this.#o.dir, freeBytes },
        scarce ? "disk nearly full: logs of ended replicas go, others are cut" : "there is room for logs again",
      );
    this.#scarce = scarce;
    if (scarce) await this.#trim();
  }
}

function tell(group: Group): void {
  for (const listener of group.listeners) listener();
}

async function entries(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (e) {
    if (systemCode(e) === "ENOENT" || systemCode(e) === "ENOTDIR") return [];
    throw e;
  }
}
