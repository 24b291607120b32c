import { type AnyMessage, type CallOptions, type Channel, isNotFound } from "./channel.ts";
import type { Timestamp } from "./types.ts";

const service = "containerd.services.containers.v1.Containers";

export interface ContainerRecord {
  /** At most 76 characters of [A-Za-z0-9] joined by single `.`, `_` or `-`. */
  id: string;
  labels: Record<string, string>;
  image: string;
  runtime: { name: string; options?: AnyMessage };
  spec: AnyMessage;
  snapshotter: string;
  snapshot_key: string;
  /** Of records that containerd gives. */
  created_at?: Timestamp | null;
}

/** Container records. A record is not a process: that is its task. */
export class Containers {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  async create(container: ContainerRecord, options: CallOptions): Promise<void> {
    await this.#channel.unary(service, "Create", { container }, options);
  }

  async get(id: string, options: CallOptions): Promise<ContainerRecord | undefined> {
    try {
      return (await this.#channel.unary<object, { container: ContainerRecord }>(service, "Get", { id }, options))
        .container;
    } catch (e) {
      if (isNotFound(e)) return undefined;
      throw e;
    }
  }

  /** Records that carry label `label`. */
  async listLabelled(label: string, options: CallOptions): Promise<ContainerRecord[]> {
    const all: ContainerRecord[] = [];
    for await (const container of this.#list([`labels."${label}"`], options)) all.push(container);
    return all;
  }

  /** Of every record there is. */
  async ids(options: CallOptions): Promise<Set<string>> {
    const all = new Set<string>();
    for await (const { id } of this.#list([], options)) all.add(id);
    return all;
  }

  /** Streamed, because a list of some hundred passes 4 MiB. */
  async *#list(filters: string[], options: CallOptions): AsyncGenerator<ContainerRecord> {
    type Message = { container: ContainerRecord };
    for await (const { container } of this.#channel.stream<Message>(service, "ListStream", { filters }, options))
      yield container;
  }

  /** Idempotent. Never while its task lives: that would leave a ghost (contracts/containerd.md §2.1). */
  async delete(id: string, options: CallOptions): Promise<void> {
    try {
      await this.#channel.unary(service, "Delete", { id }, options);
    } catch (e) {
      if (!isNotFound(e)) throw e;
    }
  }
}
