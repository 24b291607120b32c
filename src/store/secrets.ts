import { randomUUID } from "node:crypto";
import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemCode } from "../base/errors.ts";
import { isName, isSecretName } from "../base/names.ts";

/**
 * Secrets at rest: `<dir>/<namespace>/<name>`, mode 0600 in directories of mode 0700. Names are checked before they
 * become paths, so that nothing outside of the directory can be named (contracts/api.md §2.5).
 */
export class SecretStore {
  readonly #dir: string;
  constructor(dir: string) {
    this.#dir = dir;
  }

  #file(namespace: string, name: string): string {
    if (!isName(namespace) || !isSecretName(name)) throw new Error("a secret's name reached the store unchecked");
    return join(this.#dir, namespace, name);
  }

  /** Names, sorted. */
  async list(namespace: string): Promise<string[]> {
    if (!isName(namespace)) return [];
    try {
      return (await readdir(join(this.#dir, namespace))).filter(isSecretName).sort();
    } catch (e) {
      if (systemCode(e) === "ENOENT") return [];
      throw e;
    }
  }

  /** The bytes, exactly as they were put; undefined when there is no such secret. */
  async read(namespace: string, name: string): Promise<Buffer | undefined> {
    try {
      return await readFile(this.#file(namespace, name));
    } catch (e) {
      if (systemCode(e) === "ENOENT") return undefined;
      throw e;
    }
  }

  /** Creates or replaces; a reader sees the old bytes or the new ones, never a part. */
  async put(namespace: string, name: string, value: Buffer): Promise<void> {
    const file = this.#file(namespace, name);
    await mkdir(join(this.#dir, namespace), { recursive: true, mode: 0o700 });
    // a name of its own, of a length of its own: names may be as long as file names, and two may write at once
    const draft = join(this.#dir, namespace, `.~${randomUUID()}`);
    await writeFile(draft, value, { mode: 0o600, flush: true });
    await chmod(draft, 0o600);
    await rename(draft, file);
  }

  /** False when there was none. */
  async delete(namespace: string, name: string): Promise<boolean> {
    try {
      await rm(this.#file(namespace, name));
      return true;
    } catch (e) {
      if (systemCode(e) === "ENOENT") return false;
      throw e;
    }
  }
}
