import type { CallOptions, Channel } from "./channel.ts";
import type { Descriptor, Mount } from "./types.ts";

/** Unpacking of layers. */
export class Diff {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Unpacks a layer of the content store into mounts; answers with the uncompressed layer's descriptor. */
  async apply(diff: Descriptor, mounts: Mount[], options: CallOptions): Promise<Descriptor> {
    const call = { deadlineMs: 15 * 60_000, ...options };
    return (
      await this.#channel.unary<object, { applied: Descriptor }>(
        "containerd.services.diff.v1.Diff",
        "Apply",
        { diff, mounts },
        call,
      )
    ).applied;
  }
}
