import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { chmod, lstat, mkdir, open, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemCode } from "../base/errors.ts";
import { isNamespace, isSecretName } from "../base/names.ts";

/** Bytes of one secret. */
export const maxSecretBytes = 1024 * 1024;

/**
 * Secrets at rest: `<dir>/<namespace>/<name>`, mode 0600 in directories of mode 0700. Names are checked before they
 * become paths, and symbolic links are not followed, so that nothing outside of the directory can be named or reached
 * (contracts/api.md §2.5).
 */
export class SecretStore {
  readonly #dir: string;
  constructor(dir: string) {
    this.#dir = dir;
  }

  #file(namespace: string, name: string): string {
    if (!isNamespace(namespace) || !isSecretName(name)) throw new Error("a secret's name reached the store unchecked");
    return join(this.#dir, namespace, name);
  }

  /** Whether the namespace has a directory. Fails when something else is in its place. */
  async #exists(namespace: string): Promise<boolean> {
    const dir = join(this.#dir, namespace);
    const found = await lstat(dir).catch((e) => unlessAbsent(e, undefined));
    if (found && !found.isDirectory()) throw new Error(`${dir} is not a directory: move it away`);
    return found !== undefined;
  }

  /** Names, sorted. */
  async list(namespace: string): Promise<string[]> {
    if (!isNamespace(namespace) || !(await this.#exists(namespace))) return [];
    const entries = await readdir(join(this.#dir, namespace), { withFileTypes: true });
    return entries
      .filter((e) => e.isFile() && isSecretName(e.name))
      .map((e) => e.name)
      .sort();
  }

  /** The bytes, exactly as they were put; undefined when there is no such secret. */
  async read(namespace: string, name: string): Promise<Buffer | undefined> {
    const path = this.#file(namespace, name);
    if (!(await this.#exists(namespace))) return undefined;
    // no waiting for the writer of a planted pipe either
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const file = await open(path, flags).catch((e) =>
      systemCode(e) === "ELOOP" ? undefined : unlessAbsent(e, undefined),
    );
    if (!file) return undefined;
    await using _ = file;
    return (await file.stat()).isFile() ? await file.readFile() : undefined;
  }

  /** Creates or replaces; a reader sees the old bytes or the new ones, never a part. */
  async put(namespace: string, name: string, value: Buffer): Promise<void> {
    const file = this.#file(namespace, name);
    if (!(await this.#exists(namespace))) await mkdir(join(this.#dir, namespace), { recursive: true, mode: 0o700 });
    // a name of its own, of a length of its own: names may be as long as file names, and two may write at once
    const draft = join(this.#dir, namespace, `.~${randomUUID()}`);
    await writeFile(draft, value, { mode: 0o600, flag: "wx", flush: true });
    await chmod(draft, 0o600);
    await rename(draft, file);
    await syncDirectory(join(this.#dir, namespace));
  }

  /** False when there was none. */
  async delete(namespace: string, name: string): Promise<boolean> {
    const file = this.#file(namespace, name);
    if (!(await this.#exists(namespace))) return false;
    return rm(file).then(
      () => true,
      (e) => unlessAbsent(e, false),
    );
  }

  /** Removes all secrets of a namespace. Idempotent. */
  async deleteAll(namespace: string): Promise<void> {
    if (!isNamespace(namespace)) throw new Error("a namespace reached the store unchecked");
    await rm(join(this.#dir, namespace), { recursive: true, force: true }); // a link goes itself, not what it leads to
  }
}

/** A new name is on disk only when its directory is. */
async function syncDirectory(dir: string): Promise<void> {
  await using handle = await open(dir);
  await handle.sync();
}

function unlessAbsent<T>(e: unknown, absent: T): T {
  if (systemCode(e) === "ENOENT") return absent;
  throw e;
}
