import { AppError } from "../base/errors.ts";
import { maxSecretBytes, type SecretStore } from "../store/secrets.ts";
import type { Backend } from "./backend.ts";
import type { Namespaces } from "./namespaces.ts";

export interface SecretsOptions {
  store: SecretStore;
  namespaces: Namespaces;
  backend: Pick<Backend, "refreshSecret">;
  /** Whether creating one that exists replaces it. */
  overwrite: boolean;
}

/** The secrets of this daemon, as the API works with them: contracts/api.md §2.5. All fail with NAMESPACE_NOT_FOUND. */
export class Secrets {
  readonly #o: SecretsOptions;
  constructor(options: SecretsOptions) {
    this.#o = options;
  }

  /** Names, sorted. */
  list(namespace: string): Promise<string[]> {
    return this.#o.namespaces.within(namespace, () => this.#o.store.list(namespace));
  }

  /** Fails with SECRET_EXISTS or SECRET_TOO_LARGE. */
  create(namespace: string, name: string, value: Buffer): Promise<void> {
    return this.#o.namespaces.within(namespace, async () => {
      if (!this.#o.overwrite && (await this.#o.store.read(namespace, name)))
        throw new AppError("SECRET_EXISTS", [name, namespace]);
      await this.#put(namespace, name, value);
    });
  }

  /** Running functions see the new bytes when this resolves. Fails with SECRET_NOT_FOUND or SECRET_TOO_LARGE. */
  replace(namespace: string, name: string, value: Buffer): Promise<void> {
    return this.#o.namespaces.within(namespace, async () => {
      if (!(await this.#o.store.read(namespace, name))) throw new AppError("SECRET_NOT_FOUND", [name, namespace]);
      await this.#put(namespace, name, value);
    });
  }

  /** Running functions keep what they were given, but none that needs it starts any more. Fails with SECRET_NOT_FOUND. */
  remove(namespace: string, name: string): Promise<void> {
    return this.#o.namespaces.within(namespace, async () => {
      if (!(await this.#o.store.delete(namespace, name))) throw new AppError("SECRET_NOT_FOUND", [name, namespace]);
    });
  }

  async #put(namespace: string, name: string, value: Buffer): Promise<void> {
    if (value.length > maxSecretBytes) throw new AppError("SECRET_TOO_LARGE", [name, value.length, maxSecretBytes]);
    await this.#o.store.put(namespace, name, value);
    await this.#o.backend.refreshSecret(namespace, name); // also a new one: it may have been deleted under a function
  }
}
