import { type CallOptions, type Channel, isExists, isNotFound } from "./channel.ts";
import type { Mount } from "./types.ts";

const service = "containerd.services.snapshots.v1.Snapshots";

export interface SnapshotInfo {
  name: string;
  parent: string;
  kind: "UNKNOWN" | "VIEW" | "ACTIVE" | "COMMITTED";
  labels: Record<string, string>;
}

/** Layers on disk, by one snapshotter. */
export class Snapshots {
  readonly #channel: Channel;
  readonly snapshotter: string;
  constructor(channel: Channel, snapshotter: string) {
    this.#channel = channel;
    this.snapshotter = snapshotter;
  }

  #call<T extends object>(method: string, request: object, options: CallOptions): Promise<T> {
    return this.#channel.unary<object, T>(
      service,
      method,
      { snapshotter: this.snapshotter, ...request },
      { deadlineMs: 60_000, ...options },
    );
  }

  /** A writable snapshot on `parent` ("" for none). The mounts are to be passed on unchanged. */
  async prepare(key: string, parent: string, labels: Record<string, string>, options: CallOptions): Promise<Mount[]> {
    return (await this.#call<{ mounts: Mount[] }>("Prepare", { key, parent, labels }, options)).mounts;
  }

  /** A read-only snapshot on `parent`. */
  async view(key: string, parent: string, labels: Record<string, string>, options: CallOptions): Promise<Mount[]> {
    return (await this.#call<{ mounts: Mount[] }>("View", { key, parent, labels }, options)).mounts;
  }

  /** Seals `key` under `name`. Someone else having done it is fine. */
  async commit(name: string, key: string, labels: Record<string, string>, options: CallOptions): Promise<void> {
    try {
      await this.#call("Commit", { name, key, labels }, options);
    } catch (e) {
      if (!isExists(e)) throw e;
      await this.remove(key, options);
    }
  }

  async stat(key: string, options: CallOptions): Promise<SnapshotInfo | undefined> {
    try {
      return (await this.#call<{ info: SnapshotInfo }>("Stat", { key }, options)).info;
    } catch (e) {
      if (isNotFound(e)) return undefined;
      throw e;
    }
  }

  async list(options: CallOptions): Promise<SnapshotInfo[]> {
    const all: SnapshotInfo[] = [];
    const request = { snapshotter: this.snapshotter, filters: [] };
    for await (const { info } of this.#channel.stream<{ info: SnapshotInfo[] }>(service, "List", request, options))
      all.push(...info);
    return all;
  }

  /** Idempotent: garbage collection may have been first. */
  async remove(key: string, options: CallOptions): Promise<void> {
    try {
      await this.#call("Remove", { key }, options);
    } catch (e) {
      if (!isNotFound(e)) throw e;
    }
  }
}
