import type { Clock } from "../../base/clock.ts";
import { AppError, messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { Authorizer } from "./authorizer.ts";
import { Credentials } from "./credentials.ts";
import { acceptManifests, digestOf, maxDocumentBytes } from "./manifest.ts";
import { isDigest, type Reference } from "./reference.ts";
import { type Endpoint, Registries, type RegistrySettings } from "./registries.ts";
import { BrokenTransfer, discard, type HttpAnswer, readBody, reasonOf, Transport, Unreachable } from "./transport.ts";

export interface RegistryOptions {
  registries: readonly RegistrySettings[];
  /** docker's `config.json`; it need not exist yet. */
  credentialsFile?: string | undefined;
  clock: Clock;
  log: Logger;
}

/** A manifest whose bytes are proved to be what `digest` says. */
export interface FetchedManifest {
  readonly digest: string;
  readonly contentType: string;
  readonly body: Buffer;
}

/** Registries over their HTTP API. Source: OCI distribution spec, "Pull"; contracts/containerd.md §3. */
export class Registry implements AsyncDisposable {
  readonly #registries: Registries;
  readonly #transport: Transport;
  readonly #authorizer: Authorizer;
  readonly #log: Logger;

  constructor(options: RegistryOptions) {
    this.#registries = new Registries(options.registries);
    this.#transport = new Transport(this.#registries, options.clock);
    this.#authorizer = new Authorizer(new Credentials(options.credentialsFile, options.log), this.#transport);
    this.#log = options.log;
  }

  /** One image's repository for the time of one pull: mirrors that fail are left out from then on. */
  repository(ref: Reference): Repository {
    const endpoints = this.#registries.endpoints(ref.host, ref.repository);
    return new Repository(ref, endpoints, this.#transport, this.#authorizer, this.#log);
  }

  useRegistries(settings: readonly RegistrySettings[]): void {
    this.#registries.use(settings);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#registries[Symbol.asyncDispose]();
  }
}

/** All methods reject with IMAGE_* errors that name the image, or with the signal's reason. */
export class Repository {
  readonly #ref: Reference;
  readonly #transport: Transport;
  readonly #authorizer: Authorizer;
  readonly #log: Logger;
  #endpoints: readonly Endpoint[];

  constructor(ref: Reference, endpoints: Endpoint[], transport: Transport, authorizer: Authorizer, log: Logger) {
    this.#ref = ref;
    this.#endpoints = endpoints;
    this.#transport = transport;
    this.#authorizer = authorizer;
    this.#log = log;
  }

  /** Digest that a tag points to, without fetching it; undefined when the registry does not say. */
  head(target: string, signal: AbortSignal): Promise<string | undefined> {
    return this.#anywhere(signal, async (endpoint) => {
      const answer = await this.#ask(endpoint, "HEAD", `manifests/${target}`, { accept: acceptManifests }, signal);
      await discard(answer);
      const digest = answer.headers["docker-content-digest"];
      return typeof digest === "string" && isDigest(digest) ? digest : undefined;
    });
  }

  /** `target` is a tag or a digest. At most 4 MiB; verified against the digest that was asked for or announced. */
  manifest(target: string, signal: AbortSignal): Promise<FetchedManifest> {
    return this.#anywhere(signal, async (endpoint) => {
      const answer = await this.#ask(endpoint, "GET", `manifests/${target}`, { accept: acceptManifests }, signal);
      const body = await readBody(answer, maxDocumentBytes);
      if (!body)
        throw new AppError("IMAGE_BAD_MANIFEST", [
          this.#ref.canonical,
          `its manifest is over ${maxDocumentBytes} bytes`,
        ]);
      const announced = answer.headers["docker-content-digest"];
      const expected = isDigest(target)
        ? target
        : typeof announced === "string" && isDigest(announced)
          ? announced
          : "";
      const digest = digestOf(body);
      if (expected && digest !== expected)
        throw new AppError("IMAGE_DIGEST_MISMATCH", [
          this.#ref.canonical,
          expected,
          `the manifest from ${endpoint.host}`,
        ]);
      return { digest, contentType: String(answer.headers["content-type"] ?? ""), body };
    });
  }

  /** Bytes of a blob from `offset` on, not verified. The stream fails with BrokenTransfer when it ends too early. */
  blob(digest: string, offset: number, signal: AbortSignal): Promise<{ body: AsyncIterable<Buffer>; mirror: boolean }> {
    return this.#anywhere(signal, async (endpoint) => {
      const range = offset > 0 ? { range: `bytes=${offset}-` } : undefined;
      const answer = await this.#ask(endpoint, "GET", `blobs/${digest}`, range, signal);
      const start = startOf(answer);
      if (start > offset) {
        await discard(answer);
        throw new Unreachable(`asked for a blob from byte ${offset} on, it answers from ${start} on`);
      }
      // A registry without ranges sends everything again: the part that is there already is the same, by its digest.
      return { body: bytesOf(answer, offset - start), mirror: endpoint.mirror };
    });
  }

  /** Leaves the mirrors out from now on, as one of them gave wrong bytes. */
  distrustMirrors(): void {
    this.#endpoints = this.#endpoints.filter((e) => !e.mirror);
  }

  /** Mirrors in their order, then the host itself; only the host's own error counts. */
  async #anywhere<T>(signal: AbortSignal, work: (endpoint: Endpoint) => Promise<T>): Promise<T> {
    for (const endpoint of this.#endpoints) {
      try {
        return await work(endpoint);
      } catch (e) {
        signal.throwIfAborted();
        const error = this.#translate(e, endpoint);
        if (!endpoint.mirror) throw error;
        this.#log.warn(
          { image: this.#ref.canonical, mirror: endpoint.origin, err: messageOf(error) },
          "mirror does not help",
        );
        // It may only lack this image; but if it is down, each further blob would wait for it again.
        if (error.code !== "IMAGE_NOT_FOUND") this.#endpoints = this.#endpoints.filter((other) => other !== endpoint);
      }
    }
    throw new Error("a repository without an endpoint");
  }

  #translate(e: unknown, endpoint: Endpoint): AppError {
    if (e instanceof AppError) return e;
    if (e instanceof Unreachable || e instanceof BrokenTransfer)
      return new AppError("IMAGE_REGISTRY_UNREACHABLE", [this.#ref.canonical, endpoint.host, e.message], { cause: e });
    throw e;
  }

  /** A successful answer, after authentication where it is asked for. */
  async #ask(
    endpoint: Endpoint,
    method: "GET" | "HEAD",
    path: string,
    headers: Record<string, string> | undefined,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const url = new URL(`/v2/${endpoint.repository}/${path}`, endpoint.origin);
    const plainRedirects = path.includes("sha256:");
    const request = { method, url, headers: headers ?? {}, plainRedirects, attempts: endpoint.mirror ? 1 : 4 };
    const ref = this.#ref.canonical;

    let authorization = await this.#authorizer.remembered(endpoint);
    let answer = await this.#transport.send({ ...request, authorization }, signal);
    if (answer.status === 401 && answer.url.origin === url.origin) {
      authorization = await this.#authorizer.answer(ref, endpoint, answer, authorization, signal);
      answer = await this.#transport.send({ ...request, authorization }, signal);
    }
    if (answer.status === 200 || answer.status === 206) return answer;
    if (answer.status === 404) {
      await discard(answer);
      throw new AppError("IMAGE_NOT_FOUND", [ref, endpoint.host]);
    }
    if (answer.status === 401 || answer.status === 403) throw await this.#authorizer.refused(ref, endpoint, answer);
    const said = await reasonOf(answer);
    throw new Unreachable(`it answers ${answer.status}${said && `: ${said}`}`);
  }
}

/** First byte of what an answer holds. RFC 9110 §14.4. */
function startOf(answer: HttpAnswer): number {
  if (answer.status !== 206) return 0;
  const match = /^bytes (\d+)-/.exec(String(answer.headers["content-range"] ?? ""));
  return match ? Number(match[1]) : Number.POSITIVE_INFINITY;
}

async function* bytesOf(answer: HttpAnswer, skip: number): AsyncGenerator<Buffer> {
  let left = skip;
  const body = (answer.body as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await body.next().catch((e) => {
        throw new BrokenTransfer(answer.url.host, e);
      });
      if (next.done) return;
      const chunk = left > 0 ? next.value.subarray(left) : next.value;
      left = Math.max(0, left - next.value.length);
      if (chunk.length > 0) yield chunk;
    }
  } finally {
    await body.return?.();
  }
}
