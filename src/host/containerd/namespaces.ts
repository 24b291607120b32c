import { type Channel, isExists, isNotEmpty, isNotFound } from "./channel.ts";

const service = "containerd.services.namespaces.v1.Namespaces";

export interface NamespaceRecord {
  name: string;
  labels: Record<string, string>;
}

/** containerd namespaces: one per function namespace. Their own name goes into the header: events need one. */
export class Namespaces {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** False when it is there already; its labels are then as they were. */
  async create(name: string, labels: Record<string, string>): Promise<boolean> {
    try {
      await this.#channel.unary(service, "Create", { namespace: { name, labels } }, { namespace: name });
      return true;
    } catch (e) {
      if (isExists(e)) return false;
      throw e;
    }
  }

  /** Makes the namespace unless it is there, and gives it these labels beside others that it has. */
  async ensure(name: string, labels: Record<string, string>): Promise<void> {
    if (await this.create(name, labels)) return;
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    await this.#channel.unary(
      service,
      "Update",
      { namespace: { name, labels }, update_mask: { paths } },
      { namespace: name },
    );
  }

  async get(name: string): Promise<NamespaceRecord | undefined> {
    try {
      return (await this.#channel.unary<object, { namespace: NamespaceRecord }>(service, "Get", { name }, {}))
        .namespace;
    } catch (e) {
      if (isNotFound(e)) return undefined;
      throw e;
    }
  }

  async list(): Promise<NamespaceRecord[]> {
    return (await this.#channel.unary<object, { namespaces: NamespaceRecord[] }>(service, "List", {}, {})).namespaces;
  }

  /** False when something is still in it. Idempotent. */
  async delete(name: string): Promise<boolean> {
    try {
      await this.#channel.unary(service, "Delete", { name }, { namespace: name });
    } catch (e) {
      if (isNotEmpty(e)) return false;
      if (!isNotFound(e)) throw e;
    }
    return true;
  }
}
