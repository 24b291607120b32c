import { readFile } from "node:fs/promises";
import { getCACertificates } from "node:tls";
import { Agent } from "undici";
import { AppError, messageOf } from "../../base/errors.ts";

/** How one registry host is reached. */
export interface RegistrySettings {
  /** As it stands in references: `docker.io`, `registry.example.com:5000`. Mirrors and CDNs can have their own. */
  host: string;
  /** Asked in this order before the host itself: `[http[s]://]host[:port][/path]`, the path before every repository. */
  mirrors: string[];
  /** No TLS. @default true for loopback hosts, as docker does; else false */
  plainHttp?: boolean | undefined;
  /** PEM file with the CA of its certificate, in addition to the system's. */
  caFile?: string | undefined;
}

/** One place where a repository can be asked for. */
export interface Endpoint {
  /** `https://host[:port]`. */
  readonly origin: string;
  /** Host whose login is used. */
  readonly host: string;
  /** The repository there: with the mirror's path before it. */
  readonly repository: string;
  readonly mirror: boolean;
}

/** 10 s: a host that drops packets must not hold a mirror's turn for long. */
const connectTimeoutMs = 10_000;

/** Registries as configured, and the connections to them. */
export class Registries implements AsyncDisposable {
  #settings: ReadonlyMap<string, RegistrySettings>;
  readonly #agents = new Map<string, Promise<Agent>>();

  constructor(settings: readonly RegistrySettings[]) {
    this.#settings = byHost(settings);
  }

  /** From now on; connections that are in use are closed when they are done. */
  use(settings: readonly RegistrySettings[]): void {
    this.#settings = byHost(settings);
    for (const agent of this.#agents.values())
      agent.then(
        (open) => open.close(),
        () => {},
      );
    this.#agents.clear();
  }

  /** Where to ask for `host/repository`, in order. */
  endpoints(host: string, repository: string): Endpoint[] {
    const mirrors = (this.#settings.get(host)?.mirrors ?? []).map((text) => this.#mirror(text, repository));
    return [...mirrors, { origin: this.#origin(host), host, repository, mirror: false }];
  }

  #mirror(text: string, repository: string): Endpoint {
    const [, scheme, rest] = /^(https?:\/\/)?(.*?)\/*$/.exec(text)!;
    const [host = "", ...path] = rest!.split("/");
    const origin = scheme ? `${scheme}${host}` : this.#origin(host);
    return { origin, host, repository: [...path, repository].join("/"), mirror: true };
  }

  #origin(host: string): string {
    const plain = this.#settings.get(host)?.plainHttp ?? isLoopback(host);
    // Docker Hub's API has never lived under the name that references use.
    return `${plain ? "http" : "https"}://${host === "docker.io" ? "registry-1.docker.io" : host}`;
  }

  /** The connections for a host, with its own CA if one is set. Throws CONFIG when that file cannot be read. */
  agent(host: string): Promise<Agent> {
    const caFile = this.#settings.get(host)?.caFile;
    const key = caFile ?? "";
    let agent = this.#agents.get(key);
    if (!agent) {
      agent = openAgent(host, caFile);
      this.#agents.set(key, agent);
      agent.catch(() => this.#agents.delete(key)); // a file put right later counts from then on
    }
    return agent;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#agents.values()) await (await agent).destroy();
  }
}

function byHost(settings: readonly RegistrySettings[]): ReadonlyMap<string, RegistrySettings> {
  return new Map(settings.map((s) => [s.host, s]));
}

async function openAgent(host: string, caFile: string | undefined): Promise<Agent> {
  if (caFile === undefined) return new Agent({ connect: { timeout: connectTimeoutMs } });
  try {
    const ca = [...getCACertificates("default"), await readFile(caFile, "utf8")];
    return new Agent({ connect: { timeout: connectTimeoutMs, ca } });
  } catch (cause) {
    throw new AppError("CONFIG", [`the CA file ${caFile} of registry ${host} cannot be read: ${messageOf(cause)}`], {
      cause,
    });
  }
}

/** localhost, 127.0.0.0/8 and ::1, with or without a port. */
export function isLoopback(host: string): boolean {
  return /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?$/.test(host);
}
