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

  async list(): Promise<{ name: string; labels: Record<string, string> }[]> {
    const { namespaces } = await this.#channel.unary<
      object,
      { namespaces: { name: string; labels: Record<string, string> }[] }
    >(service, "List", {}, {});
    return namespaces;
  }

  /** Fails with code 9 while anything is left in it. */
  async delete(name: string): Promise<void> {
    await this.#channel.unary(service, "Delete", { name }, { namespace: name });
  }
}
