import { randomUUID } from "node:crypto";
import { chown, lstat, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AppError, systemCode } from "../base/errors.ts";
import { KeyedQueue } from "../base/keyed-queue.ts";
import { isSecretName } from "../base/names.ts";
import type { Names } from "./context.ts";

/**
 * The directories that become /var/openfaas/secrets: on memory, each file readable by the function's user alone, behind
 * a directory that nobody else on the host may enter. Directories and not single files, so that a replaced secret shows
 * in containers that run, or stand still.
 */
export class SecretCopies {
  readonly #dir: string;
  readonly #read: (namespace: string, name: string) => Promise<Buffer | undefined>;
  /** Copying waits for refreshing and the other way round: else a copy made meanwhile would stay old. */
  readonly #turns = new KeyedQueue<string>();

  /** `read`: the bytes of a secret, undefined when there is none. */
  constructor(runDir: string, read: (namespace: string, name: string) => Promise<Buffer | undefined>) {
    this.#dir = secretsRoot(runDir);
    this.#read = read;
  }

  /** Fails with SECRET_MISSING. */
  make(
    { namespace, secretsDir }: Names,
    secrets: readonly string[],
    owner: { uid: number; gid: number },
  ): Promise<void> {
    if (secrets.length === 0) return Promise.resolve();
    return this.#turns.run(namespace, async () => {
      await mkdir(dirname(secretsDir), { recursive: true, mode: 0o700 });
      await mkdir(secretsDir, { recursive: true, mode: 0o500 });
      await chown(secretsDir, owner.uid, owner.gid);
      for (const name of new Set(secrets)) {
        const value = await this.#read(namespace, name);
        if (!value) throw new AppError("SECRET_MISSING", [name, namespace]);
        await this.#write(secretsDir, name, value);
      }
    });
  }

  /** Brings the copies of one secret up to date, in every replica that was given it. */
  refresh(namespace: string, name: string): Promise<void> {
    return this.#turns.run(namespace, async () => {
      const value = await this.#read(namespace, name);
      if (!value) return;
      for (const replica of await entries(this.#dir)) {
        if (!replica.startsWith(`${namespace}.`)) continue; // neither has a dot in it
        const dir = join(this.#dir, replica);
        if (!(await entries(dir)).includes(name)) continue;
        await this.#write(dir, name, value).catch(async (e) => {
          if ((await entries(dir)).length > 0) throw e; // else it went away meanwhile, with its replica
        });
      }
    });
  }

  /** Brings all copies of one replica up to date: what a crash between storing and copying left old. */
  refreshReplica({ namespace, secretsDir }: Names): Promise<void> {
    return this.#turns.run(namespace, async () => {
      for (const name of (await entries(secretsDir)).filter(isSecretName)) {
        const value = await this.#read(namespace, name);
        if (value && !value.equals(await readFile(join(secretsDir, name)))) await this.#write(secretsDir, name, value);
      }
    });
  }

  /** The old bytes or the new ones, never a part; in a directory that only shows what it shall. */
  async #write(dir: string, name: string, value: Buffer): Promise<void> {
    const { uid, gid } = await lstat(dir);
    const draft = join(this.#dir, `.~${basename(dir)}.${randomUUID()}`);
    try {
      await writeFile(draft, value, { mode: 0o400, flag: "wx" });
      await chown(draft, uid, gid);
      await rename(draft, join(dir, name));
    } catch (e) {
      await rm(draft, { force: true });
      throw e;
    }
  }
}

/** Where the directories of all replicas are, each called as its replica on this machine. */
export function secretsRoot(runDir: string): string {
  return join(runDir, "secrets");
}

async function entries(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (e) {
    if (systemCode(e) === "ENOENT" || systemCode(e) === "ENOTDIR") return [];
    throw e;
  }
}
