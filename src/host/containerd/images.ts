import { type CallOptions, type Channel, isExists, isNotFound } from "./channel.ts";
import type { Descriptor, Timestamp } from "./types.ts";

const service = "containerd.services.images.v1.Images";

export interface ImageRecord {
  name: string;
  labels: Record<string, string>;
  target: Descriptor;
}

/** A record as containerd has it: `updated_at` moves with every `put`. */
export interface ListedImage extends ImageRecord {
  created_at: Timestamp | null;
  updated_at: Timestamp | null;
}

/** Image records: names that keep content alive. */
export class Images {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  async get(name: string, options: CallOptions): Promise<ImageRecord | undefined> {
    try {
      return (await this.#channel.unary<object, { image: ImageRecord }>(service, "Get", { name }, options)).image;
    } catch (e) {
      if (isNotFound(e)) return undefined;
      throw e;
    }
  }

  /** `filters` as in contracts/containerd.md §1.5; a record that fits any of them is listed. @default all */
  async list(options: CallOptions, filters: readonly string[] = []): Promise<ListedImage[]> {
    return (await this.#channel.unary<object, { images: ListedImage[] }>(service, "List", { filters }, options)).images;
  }

  /** Creates the record, or points an existing one to this target. */
  async put(image: ImageRecord, options: CallOptions): Promise<void> {
    try {
      await this.#channel.unary(service, "Create", { image }, options);
    } catch (e) {
      if (!isExists(e)) throw e;
      await this.#channel.unary(service, "Update", { image, update_mask: { paths: ["target", "labels"] } }, options);
    }
  }

  /** Idempotent. `sync` waits for the garbage collection that follows. */
  async delete(name: string, options: CallOptions & { sync?: boolean }): Promise<void> {
    const { sync = false, ...call } = options;
    try {
      await this.#channel.unary(service, "Delete", { name, sync }, { deadlineMs: 60_000, ...call });
    } catch (e) {
      if (!isNotFound(e)) throw e;
    }
  }
}
