import { AppError, isAppError, messageOf } from "../base/errors.ts";
import { failpoint } from "../base/failpoints.ts";
import { KeyedQueue } from "../base/keyed-queue.ts";
import type { Logger } from "../base/log.ts";
import { isNamespace, namespaceRule } from "../base/names.ts";
import type { NamespaceStore } from "../store/namespaces.ts";
import type { SecretStore } from "../store/secrets.ts";
import type { Backend } from "./backend.ts";

/** FunctionNamespace of contracts/api.md §2.1. */
export interface Namespace {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface NamespacesOptions {
  store: NamespaceStore;
  secrets: SecretStore;
  backend: Pick<Backend, "addNamespace" | "removeNamespace">;
  /** What stands in the way of deleting a namespace, in words; null when nothing does. */
  occupants: (namespace: string) => string | null;
  defaultNamespace: string;
  log: Logger;
}

/** The gateway's own name for functions is in it (`gateway.openfaas`), and OpenFaaS' services are in other places. */
const reserved = "openfaas";

/** The namespaces of this daemon, as the API works with them: contracts/api.md §2.6. */
export class Namespaces {
  readonly #o: NamespacesOptions;
  /** Changes of one namespace and of its secrets happen one after the other. */
  readonly #changes = new KeyedQueue<string>();
  /** Work under way that puts something into a namespace. */
  readonly #guests = new Map<string, number>();

  constructor(options: NamespacesOptions) {
    this.#o = options;
  }

  /** The default one is there from the first start on, and stays when the setting names another. */
  static ensureDefault(store: NamespaceStore, name: string): void {
    if (store.get(name)?.leaving !== false)
      store.put({ name, labels: { openfaas: "1" }, annotations: {}, leaving: false });
  }

  /** Ends the removals that a stop of napd cut off. What fails is tried again by the next start or the next delete. */
  async open(): Promise<void> {
    for (const { name, leaving } of this.#o.store.list())
      if (leaving)
        await this.#changes
          .run(name, () => this.#remove(name))
          .catch((e) => this.#o.log.warn({ namespace: name, err: messageOf(e) }, "namespace could not be removed"));
  }

  /** The default one first, then by name. */
  list(): string[] {
    const { store, defaultNamespace } = this.#o;
    return [defaultNamespace, ...store.names().filter((name) => name !== defaultNamespace)];
  }

  /** Fails with NAMESPACE_UNKNOWN. */
  get(name: string): Namespace {
    const row = this.#o.store.get(name);
    if (!row || row.leaving) throw new AppError("NAMESPACE_UNKNOWN", [name]);
    return row;
  }

  /** Fails with BAD_REQUEST, NAMESPACE_EXISTS or NAMESPACE_TAKEN. */
  async create({ name, labels, annotations }: Namespace): Promise<void> {
    if (!isNamespace(name))
      throw new AppError("BAD_REQUEST", [
        name === "" ? "name: a namespace needs a name" : `name: "${name}" must be ${namespaceRule}`,
      ]);
    if (name === reserved) throw new AppError("BAD_REQUEST", [`name: "${reserved}" is reserved`]);
    await this.#changes.run(name, async () => {
      const { store, backend } = this.#o;
      const before = store.get(name);
      if (before?.leaving) await this.#remove(name);
      else if (before) throw new AppError("NAMESPACE_EXISTS", [name]);
      await backend.addNamespace(name);
      failpoint("namespace.added"); // a crash here leaves one that no row knows: the next sweep removes it
      store.put({ name, labels, annotations, leaving: false });
    });
  }

  /** Replaces labels and annotations. Fails with NAMESPACE_UNKNOWN. */
  async update({ name, labels, annotations }: Namespace): Promise<void> {
    await this.#changes.run(name, async () => {
      this.get(name);
      this.#o.store.put({ name, labels, annotations, leaving: false });
    });
  }

  /** Removes an empty namespace with its secrets. Fails with NAMESPACE_UNKNOWN, NAMESPACE_DEFAULT or NAMESPACE_IN_USE. */
  async remove(name: string): Promise<void> {
    await this.#changes.run(name, async () => {
      const { store, occupants, defaultNamespace } = this.#o;
      const row = store.get(name);
      if (!row) throw new AppError("NAMESPACE_UNKNOWN", [name]);
      if (name === defaultNamespace) throw new AppError("NAMESPACE_DEFAULT", [name]);
      const by = this.#guests.has(name) ? "an import of images under way" : occupants(name);
      if (by !== null) throw new AppError("NAMESPACE_IN_USE", [name, by]);
      store.put({ ...row, leaving: true }); // in the same turn as the look at the occupants: from here on nobody comes
      failpoint("namespace.leaving");
      await this.#remove(name).catch((e) => {
        if (isAppError(e, "NAMESPACE_IN_USE")) store.put(row); // what is in the way is not ours, and may stay there
        throw e;
      });
    });
  }

  async #remove(name: string): Promise<void> {
    await this.#o.backend.removeNamespace(name);
    failpoint("namespace.removed");
    await this.#o.secrets.deleteAll(name);
    this.#o.store.delete(name);
  }

  /** Work that puts something into a namespace, which stays meanwhile. Fails with NAMESPACE_NOT_FOUND. */
  async occupied<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (!this.#o.store.names().includes(name)) throw new AppError("NAMESPACE_NOT_FOUND", [name]);
    const count = (by: number) => this.#guests.set(name, (this.#guests.get(name) ?? 0) + by);
    count(1);
    try {
      return await work();
    } finally {
      if (count(-1).get(name) === 0) this.#guests.delete(name);
    }
  }

  /** Work on what is in a namespace, while nobody else changes or removes it. Fails with NAMESPACE_NOT_FOUND. */
  within<T>(name: string, work: () => Promise<T>): Promise<T> {
    return this.#changes.run(name, async () => {
      if (!this.#o.store.names().includes(name)) throw new AppError("NAMESPACE_NOT_FOUND", [name]);
      return work();
    });
  }
}
