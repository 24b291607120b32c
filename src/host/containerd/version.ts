import type { Channel } from "./channel.ts";

/** Version and plug-ins: whether containerd answers, and what it can do. */
export class Server {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** `deadlineMs` also bounds the wait for a containerd that is not up yet. */
  version(deadlineMs: number, signal?: AbortSignal): Promise<{ version: string; revision: string }> {
    return this.#channel.unary("containerd.services.version.v1.Version", "Version", {}, { deadlineMs, signal });
  }

  /** Ids of the snapshotters that initialised; one that was skipped or failed carries an error. */
  async snapshotters(): Promise<string[]> {
    type Plugins = { plugins: { id: string; init_err: { code: number; message: string } | null }[] };
    const filters = ["type==io.containerd.snapshotter.v1"];
    const { plugins } = await this.#channel.unary<object, Plugins>(
      "containerd.services.introspection.v1.Introspection",
      "Plugins",
      { filters },
      {},
    );
    return plugins.filter((p) => !p.init_err).map((p) => p.id);
  }
}
