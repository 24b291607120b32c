import { readFile, stat } from "node:fs/promises";
import { z } from "zod";
import { AppError, messageOf, systemCode } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";

/** What a registry is told about who asks. */
export type Credential =
  | { readonly kind: "password"; readonly username: string; readonly password: string }
  | { readonly kind: "refresh"; readonly token: string };

/** The parts of docker's config.json that matter here. */
const configSchema = z.object({
  auths: z
    .record(
      z.string(),
      z.object({
        auth: z.string().optional(),
        username: z.string().optional(),
        password: z.string().optional(),
        identitytoken: z.string().optional(),
      }),
    )
    .default({}),
  credHelpers: z.record(z.string(), z.unknown()).default({}),
  credsStore: z.string().default(""),
});

/** Larger than any real one: a login is about 100 bytes. */
const maxBytes = 1024 * 1024;

/** Names under which docker keeps the login of its own registry; the first is what `docker login` writes. */
const dockerHub = new Set(["index.docker.io", "docker.io", "registry-1.docker.io"]);

/**
 * Logins from a file in docker's `config.json` format. The file is looked at anew for every question and read again
 * when it changed, so that a login takes effect at once; no file means no logins. Nothing of it is ever logged.
 */
export class Credentials {
  readonly #file: string | undefined;
  readonly #log: Logger;
  #read: { mark: string; entries: ReadonlyMap<string, Credential> } | undefined;

  constructor(file: string | undefined, log: Logger) {
    this.#file = file;
    this.#log = log;
  }

  /** Where logins come from, for error texts. */
  get source(): string {
    return this.#file ?? "no file (none is set)";
  }

  /**
   * The login for a repository: of the longest path of it that has one, else of the registry.
   * Throws IMAGE_CREDENTIALS when the file cannot be read or understood.
   */
  async find(host: string, repository: string): Promise<Credential | undefined> {
    const entries = await this.#entries();
    const base = dockerHub.has(host) ? "docker.io" : host;
    for (let path = repository; path; path = path.slice(0, Math.max(0, path.lastIndexOf("/")))) {
      const entry = entries.get(`${base}/${path}`);
      if (entry) return entry;
    }
    return entries.get(base);
  }

  async #entries(): Promise<ReadonlyMap<string, Credential>> {
    if (this.#file === undefined) return new Map();
    try {
      const { mtimeMs, size, ino } = await stat(this.#file);
      const mark = `${mtimeMs} ${size} ${ino}`;
      if (this.#read?.mark !== mark) {
        if (size > maxBytes)
          throw new AppError("IMAGE_CREDENTIALS", [this.#file, `it is larger than ${maxBytes} bytes`]);
        this.#read = { mark, entries: this.#parse(this.#file, await readFile(this.#file, "utf8")) };
      }
      return this.#read.entries;
    } catch (e) {
      if (e instanceof AppError) throw e;
      if (systemCode(e) === "ENOENT") return new Map();
      throw new AppError("IMAGE_CREDENTIALS", [this.#file, systemCode(e) ?? messageOf(e)], { cause: e });
    }
  }

  #parse(file: string, text: string): ReadonlyMap<string, Credential> {
    const { entries, helpers } = parseDockerConfig(file, text);
    if (helpers.length > 0)
      this.#log.warn({ file, helpers }, "credential helpers are not supported; write logins into the file itself");
    return entries;
  }
}

/** Logins by `host` or `host/path`, and the credential helpers that are named but not supported. */
export function parseDockerConfig(
  file: string,
  text: string,
): { entries: ReadonlyMap<string, Credential>; helpers: string[] } {
  // No cause and no parser's message on purpose: both quote the text, which holds passwords.
  const bad = (why: string) => new AppError("IMAGE_CREDENTIALS", [file, why]);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw bad("it is not JSON");
  }
  const parsed = configSchema.safeParse(json);
  if (!parsed.success)
    throw bad(`${parsed.error.issues[0]?.path.join(".") || "it"} is not as docker's config.json has it`);

  const entries = new Map<string, Credential>();
  for (const [key, value] of Object.entries(parsed.data.auths)) {
    const credential = toCredential(value, () => bad(`the login for ${key} is not base64 of "user:password"`));
    if (credential) entries.set(entryKey(key), credential);
  }
  const { credHelpers, credsStore } = parsed.data;
  return { entries, helpers: [...(credsStore ? [credsStore] : []), ...Object.keys(credHelpers)] };
}

/** `https://index.docker.io/v1/` and `https://HOST/v2/` are old ways to write a host. */
function entryKey(key: string): string {
  const path = key.replace(/^https?:\/\//, "").replace(/\/+$/, "");
  const [host = "", ...rest] = path.split("/");
  const base = dockerHub.has(host) ? "docker.io" : host;
  return rest.length === 0 || (rest.length === 1 && /^v[12]$/.test(rest[0]!)) ? base : [base, ...rest].join("/");
}

interface AuthEntry {
  auth?: string | undefined;
  username?: string | undefined;
  password?: string | undefined;
  identitytoken?: string | undefined;
}

/** An empty entry is what docker leaves when a helper holds the login: none. */
function toCredential(entry: AuthEntry, bad: () => AppError): Credential | undefined {
  if (entry.identitytoken) return { kind: "refresh", token: entry.identitytoken };
  if (entry.auth) {
    const text = Buffer.from(entry.auth, "base64").toString();
    const colon = text.indexOf(":");
    if (colon <= 0) throw bad();
    // docker pads passwords with NUL
    return { kind: "password", username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, "") };
  }
  return entry.username ? { kind: "password", username: entry.username, password: entry.password ?? "" } : undefined;
}
