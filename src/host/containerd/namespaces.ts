import { type Channel, isExists } from "./channel.ts";

const service = "containerd.services.namespaces.v1.Namespaces";

/** containerd namespaces: one per function namespace. */
export class Namespaces {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Makes the namespace unless it is there. Its own name goes into the header: the event needs one. */
  async ensure(name: string, labels: Record<string, string>): Promise<void> {
    try {
      await this.#channel.unary(service, "Create", { namespace: { name, labels } }, { namespace: name });
    } catch (e) {
      if (!isExists(e)) throw e;
    }
  }
}
