import type { Channel } from "./channel.ts";

interface Plugin {
  id: string;
  exports: Record<string, string>;
  init_err: { code: number; message: string } | null;
}

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
    const plugins = await this.#plugins(["type==io.containerd.snapshotter.v1"]);
    return plugins.filter((p) => !p.init_err).map((p) => p.id);
  }

  /** Directories on this machine where images take space: of the blobs, and of the layers that `snapshotter` unpacked. */
  async imageRoots(snapshotter: string): Promise<string[]> {
    const filters = ["type==io.containerd.content.v1", `type==io.containerd.snapshotter.v1,id==${snapshotter}`];
    return (await this.#plugins(filters)).map((p) => p.exports.root ?? "").filter((root) => root !== "");
  }

  async #plugins(filters: readonly string[]): Promise<Plugin[]> {
    const service = "containerd.services.introspection.v1.Introspection";
    return (await this.#channel.unary<object, { plugins: Plugin[] }>(service, "Plugins", { filters }, {})).plugins;
  }
}
