import { randomBytes } from "node:crypto";
import { type Channel, isNotFound } from "./channel.ts";

const service = "containerd.services.leases.v1.Leases";

/** Leases keep what is being made from garbage collection; each expires by itself should napd die. */
export class Leases {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** A lease of ours that disposes of itself. `ttlMs`: how long it lives when nobody does. */
  async open(namespace: string, purpose: string, ttlMs: number): Promise<Lease> {
    const id = `napd-${purpose}-${randomBytes(6).toString("hex")}`;
    // RFC 3339 without a fraction: contracts/containerd.md §2.1 step 4
    const expire = `${new Date(Date.now() + ttlMs).toISOString().slice(0, 19)}Z`;
    await this.#channel.unary(
      service,
      "Create",
      { id, labels: { "containerd.io/gc.expire": expire, napd: purpose } },
      { namespace },
    );
    return new Lease(this, namespace, id);
  }

  /** Idempotent. `sync` waits for the garbage collection that follows. */
  async delete(namespace: string, id: string, sync = false): Promise<void> {
    try {
      await this.#channel.unary(service, "Delete", { id, sync }, { namespace, deadlineMs: 30_000 });
    } catch (e) {
      if (!isNotFound(e)) throw e;
    }
  }

  /**
   * Keeps something that is there already from garbage collection too. `type` is `content`, with a digest, or
   * `snapshots/<snapshotter>`, with a name. Does not look whether it is there: ask after this, not before.
   */
  async hold(namespace: string, id: string, resource: { id: string; type: string }): Promise<void> {
    await this.#channel.unary(service, "AddResource", { id, resource }, { namespace });
  }

  /** Ids of the leases that a napd made. */
  async listOurs(namespace: string): Promise<string[]> {
    const { leases } = await this.#channel.unary<object, { leases: { id: string; labels: Record<string, string> }[] }>(
      service,
      "List",
      { filters: [] },
      { namespace },
    );
    return leases.filter((l) => l.labels.napd !== undefined).map((l) => l.id);
  }
}

/** Held while something is made; releasing twice is harmless. */
export class Lease implements AsyncDisposable {
  readonly #leases: Leases;
  readonly namespace: string;
  readonly id: string;
  #released: Promise<void> | undefined;
  constructor(leases: Leases, namespace: string, id: string) {
    this.#leases = leases;
    this.namespace = namespace;
    this.id = id;
  }
  release(): Promise<void> {
    this.#released ??= this.#leases.delete(this.namespace, this.id);
    return this.#released;
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}
