import type { ClientDuplexStream } from "@grpc/grpc-js";
import { type CallOptions, type Channel, isNotFound } from "./channel.ts";

const service = "containerd.services.content.v1.Content";

export interface BlobInfo {
  digest: string;
  /** Bytes, as decimal text. */
  size: string;
  labels: Record<string, string>;
}

export interface WriteRequest {
  action: "STAT" | "WRITE" | "COMMIT";
  ref: string;
  total?: number;
  expected?: string;
  offset?: number;
  data?: Buffer;
  labels?: Record<string, string>;
}

export interface WriteAnswer {
  action: string;
  offset: string;
  total: string;
  digest: string;
}

/** The content store: blobs by digest. */
export class Content {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Undefined when the blob is not in this namespace. */
  async info(digest: string, options: CallOptions): Promise<BlobInfo | undefined> {
    try {
      return (await this.#channel.unary<object, { info: BlobInfo }>(service, "Info", { digest }, options)).info;
    } catch (e) {
      if (isNotFound(e)) return undefined;
      throw e;
    }
  }

  /** Sets these labels; an empty value removes one. Others stay. */
  async label(digest: string, labels: Record<string, string>, options: CallOptions): Promise<void> {
    const paths = Object.keys(labels).map((k) => `labels.${k}`);
    await this.#channel.unary(service, "Update", { info: { digest, labels }, update_mask: { paths } }, options);
  }

  /** All blobs of the namespace. */
  async list(options: CallOptions): Promise<BlobInfo[]> {
    const all: BlobInfo[] = [];
    for await (const { info } of this.#channel.stream<{ info: BlobInfo[] }>(service, "List", { filters: [] }, options))
      all.push(...info);
    return all;
  }

  /** A whole blob; meant for manifests and configurations. Fails when it is larger than `maxBytes`. */
  async read(digest: string, maxBytes: number, options: CallOptions): Promise<Buffer> {
    const parts: Buffer[] = [];
    let size = 0;
    for await (const { data } of this.#channel.stream<{ data: Buffer }>(service, "Read", { digest }, options)) {
      size += data.length;
      if (size > maxBytes) throw new Error(`blob ${digest} is larger than ${maxBytes} bytes`);
      parts.push(data);
    }
    return Buffer.concat(parts);
  }

  /** A raw write stream; see image/ingest for the protocol. */
  write(options: CallOptions): ClientDuplexStream<WriteRequest, WriteAnswer> {
    return this.#channel.duplex(service, "Write", options);
  }

  /** Drops a half-written blob and the space it takes. Idempotent. */
  async abort(ref: string, options: CallOptions): Promise<void> {
    try {
      await this.#channel.unary(service, "Abort", { ref }, options);
    } catch (e) {
      if (!isNotFound(e)) throw e;
    }
  }

  /** Refs of half-written blobs. */
  async listIngests(options: CallOptions): Promise<{ ref: string; offset: string; total: string }[]> {
    type Statuses = { statuses: { ref: string; offset: string; total: string }[] };
    return (await this.#channel.unary<object, Statuses>(service, "ListStatuses", { filters: [] }, options)).statuses;
  }
}
