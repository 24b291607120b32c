import { X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import { AppError, messageOf, systemCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";

/** PEM files: the certificate with what leads up to its root, and its key. */
export interface CertificateFiles {
  readonly certificate: string;
  readonly key: string;
}

/** What a TLS server is given. */
export interface Identity {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly minVersion: "TLSv1.2";
}

/** How often the files are looked at, ms. */
const lookMs = 5000;

/**
 * A certificate and its key, read anew when their files change. Looking at the files finds every kind of change:
 * written over, renamed into place, or a link that leads elsewhere. A pair that cannot be used is told in the log, and
 * the one before stays.
 */
export class Certificate implements Disposable {
  #files: CertificateFiles;
  #identity: Identity;
  readonly #log: Logger;
  readonly #timer: NodeJS.Timeout;
  #users: ((identity: Identity) => void)[] = [];
  /** Of the files that were read last, whether they could be used or not, and of those that the last look found. */
  #read: string;
  #seen: string;
  #looks = false;

  private constructor(files: CertificateFiles, identity: Identity, stamp: string, log: Logger, everyMs: number) {
    this.#files = files;
    this.#identity = identity;
    this.#read = this.#seen = stamp;
    this.#log = log;
    this.#timer = setInterval(() => void this.#look(), everyMs).unref();
  }

  /** Fails with TLS_CERTIFICATE. */
  static async open(files: CertificateFiles, log: Logger, everyMs = lookMs): Promise<Certificate> {
    const stamp = await stampOf(files);
    return new Certificate(files, await readIdentity(files), stamp, log, everyMs);
  }

  get identity(): Identity {
    return this.#identity;
  }

  /** `use` is given each new identity. */
  onChange(use: (identity: Identity) => void): void {
    this.#users.push(use);
  }

  /** Reads the files at once, other ones perhaps. Fails with TLS_CERTIFICATE, and then nothing has changed. */
  async reload(files: CertificateFiles): Promise<void> {
    const stamp = await stampOf(files);
    const identity = await readIdentity(files);
    this.#files = files;
    this.#read = this.#seen = stamp;
    this.#identity = identity;
    for (const use of this.#users) use(identity);
    const { subject, validTo } = new X509Certificate(identity.cert);
    this.#log.info({ file: files.certificate, subject, validTo }, "certificate loaded");
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  /** Two looks must find the same: certificate and key are not replaced at one moment. */
  async #look(): Promise<void> {
    if (this.#looks) return;
    this.#looks = true;
    const stamp = await stampOf(this.#files);
    if (stamp !== this.#read && stamp === this.#seen) {
      this.#read = stamp;
      await this.reload(this.#files).catch((e) =>
        this.#log.error({ err: messageOf(e) }, "the certificate changed and cannot be used; the one before stays"),
      );
    }
    this.#seen = stamp;
    this.#looks = false;
  }
}

async function readIdentity({ certificate, key }: CertificateFiles): Promise<Identity> {
  const read = (file: string) =>
    readFile(file).catch((cause) => {
      const why = systemCode(cause) === "ENOENT" ? "there is no such file" : messageOf(cause);
      throw new AppError("TLS_CERTIFICATE", [file, why], { cause });
    });
  const identity: Identity = { cert: await read(certificate), key: await read(key), minVersion: "TLSv1.2" };
  try {
    createSecureContext(identity);
    new X509Certificate(identity.cert);
    return identity;
  } catch (cause) {
    const why = /key values mismatch/i.test(messageOf(cause))
      ? `it does not belong to the key in ${key}`
      : `it or the key in ${key} is not in PEM format: ${messageOf(cause)}`;
    throw new AppError("TLS_CERTIFICATE", [certificate, why], { cause });
  }
}

/** Changes whenever what the files hold does. */
async function stampOf({ certificate, key }: CertificateFiles): Promise<string> {
  const one = (file: string) =>
    stat(file).then(
      ({ dev, ino, mtimeMs, size }) => `${dev}:${ino}:${mtimeMs}:${size}`,
      () => "none",
    );
  return `${await one(certificate)} ${await one(key)}`;
}
