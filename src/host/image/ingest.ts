import { createHash, type Hash } from "node:crypto";
import { type ClientDuplexStream, type ServiceError, status } from "@grpc/grpc-js";
import { backoffMs } from "../../base/backoff.ts";
import { AppError, messageOf } from "../../base/errors.ts";
import { ContainerdError, isExists, isUnavailable } from "../containerd/channel.ts";
import type { WriteAnswer, WriteRequest } from "../containerd/content.ts";
import type { Scope, Tools } from "./tools.ts";
import { BrokenTransfer } from "./transport.ts";

export interface Blob {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly labels: Readonly<Record<string, string>>;
}

/** Where the bytes of a blob come from. */
export interface Source {
  /** Bytes from `offset` on; fails with BrokenTransfer when asking again may help. */
  open(offset: number, signal: AbortSignal): Promise<AsyncIterable<Buffer>>;
  /** Wrong bytes came: true when the next `open` goes to another place. */
  distrust?(): boolean;
}

/** How half-written blobs of ours begin; the mark of the process follows. */
export const ingestPrefix = "napd-blob-";

/** 4 MiB: the fastest in lock step, far below containerd's limit of 16. contracts/containerd.md §3. */
const pieceBytes = 4 * 1024 * 1024;
/** Failures in a row without a byte of progress. */
const maxFailures = 5;
/** Whole blobs that were wrong: a patched-up transfer, a mirror, and then the registry's own word. */
const maxMismatches = 3;
const retryMinMs = 200;
const retryMaxMs = 5_000;
const distributionLabel = "containerd.io/distribution.source.";

/**
 * Puts a blob into the content store under the scope's lease; one that is there already is only leased and labelled.
 * Survives broken connections by going on where it stopped. After a failure nothing of it is left.
 * Throws IMAGE_DIGEST_MISMATCH, IMAGE_REGISTRY_UNREACHABLE, CONTAINERD, or the signal's reason.
 */
export function ingest(
  tools: Tools,
  scope: Scope,
  blob: Blob,
  source: Source,
  onOffset: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  return tools.blobs.run(`${scope.namespace} ${blob.digest}`, async () => {
    await new Ingest(tools, scope, blob, source, onOffset).run(signal);
    onOffset(blob.size);
  });
}

/** A small blob that is in memory. */
export function ingestBytes(
  tools: Tools,
  scope: Scope,
  digest: string,
  bytes: Buffer,
  labels: Record<string, string>,
  signal: AbortSignal,
): Promise<void> {
  const open = async function* (offset: number) {
    yield bytes.subarray(offset);
  };
  const source = { open: async (offset: number) => open(offset) };
  return ingest(tools, scope, { digest, size: bytes.length, labels }, source, () => {}, signal);
}

/** One blob on its way, with what must be remembered from one try to the next. */
class Ingest {
  readonly #tools: Tools;
  readonly #scope: Scope;
  readonly #blob: Blob;
  readonly #source: Source;
  readonly #onOffset: (bytes: number) => void;
  readonly #ref: string;
  readonly #hashing = new RunningHash();
  /** Furthest byte so far. */
  #reached = 0;
  /** Tries in a row without a byte of progress. */
  #failures = 0;
  /** Whether the bytes came in more than one go. */
  #resumed = false;
  #mismatches = 0;

  constructor(tools: Tools, scope: Scope, blob: Blob, source: Source, onOffset: (bytes: number) => void) {
    this.#tools = tools;
    this.#scope = scope;
    this.#blob = blob;
    this.#source = source;
    this.#onOffset = onOffset;
    this.#ref = `${ingestPrefix}${tools.mark}-${blob.digest}`;
  }

  async run(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        signal.throwIfAborted();
        try {
          return await this.#write(signal);
        } catch (e) {
          signal.throwIfAborted();
          await this.#prepareAnother(e, signal);
        }
      }
    } catch (e) {
      await this.#abort();
      throw e;
    }
  }

  /** Returns when another try makes sense; throws what the caller shall see when not. */
  async #prepareAnother(e: unknown, signal: AbortSignal): Promise<void> {
    if (e instanceof WrongBytes) {
      // Once more from the start when they came in parts, or when there is another place to ask.
      const another = this.#source.distrust?.() || this.#resumed;
      if (!another || ++this.#mismatches >= maxMismatches)
        throw new AppError("IMAGE_DIGEST_MISMATCH", [this.#scope.ref, this.#blob.digest, `a blob (${e.message})`]);
      this.#resumed = false;
      await this.#abort();
      return;
    }
    if (!(e instanceof BrokenTransfer) && !isUnavailable(e)) throw e;
    if (++this.#failures >= maxFailures) throw e instanceof BrokenTransfer ? brokenOff(this.#scope, e) : e;
    await this.#tools.clock.sleep(backoffMs(this.#failures - 1, retryMinMs, retryMaxMs), signal);
  }

  /** Without this the next try would go on behind bad bytes, and the space would stay taken. */
  async #abort(): Promise<void> {
    const { containerd, log } = this.#tools;
    const { namespace } = this.#scope;
    await containerd.content.abort(this.#ref, { namespace }).catch((e) => {
      log.warn({ namespace, ref: this.#ref, err: messageOf(e) }, "half-written blob not dropped");
    });
  }

  /** One write stream: contracts/containerd.md §3, "Content side". */
  async #write(signal: AbortSignal): Promise<void> {
    const { namespace, lease } = this.#scope;
    const { digest, size, labels } = this.#blob;
    await using stream = new WriteStream(this.#tools.containerd.content.write({ namespace, lease }), signal);
    const target = { ref: this.#ref, total: size, expected: digest };
    try {
      // STAT also puts a blob that is there already under our lease. All there with nothing written: the blob came
      // by another namespace.
      const offset = Number((await stream.ask({ action: "STAT", ...target })).offset);
      if (offset < size) await this.#transfer(stream, offset, signal);
      await stream.ask({ action: "COMMIT", ...target, offset: size, labels: { ...labels } });
    } catch (e) {
      if (e instanceof ContainerdError && e.grpc === status.FAILED_PRECONDITION) throw new WrongBytes(e.message);
      if (!isExists(e)) throw e;
      await this.#relabel();
    }
  }

  async #transfer(stream: WriteStream, from: number, signal: AbortSignal): Promise<void> {
    let offset = from;
    this.#resumed ||= offset > 0;
    this.#advance(offset);
    const body = await this.#source.open(offset, signal);
    this.#hashing.from(offset);
    for await (const data of piecesOf(body, this.#blob.size - offset, this.#hashing)) {
      await stream.ask({ action: "WRITE", ref: this.#ref, offset, data });
      offset += data.length;
      this.#advance(offset);
    }
    this.#hashing.verify(this.#blob);
  }

  #advance(offset: number): void {
    if (offset > this.#reached) this.#failures = 0;
    this.#reached = Math.max(this.#reached, offset);
    this.#onOffset(offset);
  }

  /** A blob that was there before gets what garbage collection needs; where it first came from stays. */
  async #relabel(): Promise<void> {
    const { digest, labels } = this.#blob;
    const needed = Object.fromEntries(Object.entries(labels).filter(([k]) => !k.startsWith(distributionLabel)));
    if (Object.keys(needed).length > 0)
      await this.#tools.containerd.content.label(digest, needed, { namespace: this.#scope.namespace });
  }
}

/** What was received is not what the digest says. */
class WrongBytes extends Error {}

function brokenOff(scope: Scope, e: BrokenTransfer): AppError {
  const why = `the connection broke ${maxFailures} times in a row (${e.message})`;
  return new AppError("IMAGE_REGISTRY_UNREACHABLE", [scope.ref, e.host, why], { cause: e });
}

/**
 * Joins what the network gives to pieces of about 4 MiB. Throws WrongBytes when there is more than `size`, and
 * BrokenTransfer when there is less; what came before it broke is given out first.
 */
async function* piecesOf(body: AsyncIterable<Buffer>, size: number, hashing: RunningHash): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let held = 0;
  let seen = 0;
  let broken: BrokenTransfer | undefined;
  try {
    for await (const part of body) {
      seen += part.length;
      if (seen > size) throw new WrongBytes(`more than the ${size} bytes that were announced`);
      hashing.update(part); // in small steps: a piece at once would hold up every request for milliseconds
      parts.push(part);
      held += part.length;
      if (held < pieceBytes) continue;
      yield Buffer.concat(parts);
      parts = [];
      held = 0;
    }
  } catch (e) {
    if (!(e instanceof BrokenTransfer)) throw e;
    broken = e;
  }
  if (held > 0) yield Buffer.concat(parts);
  if (broken) throw broken;
  if (seen < size) throw new BrokenTransfer("the registry", new Error(`it ended ${size - seen} bytes too early`));
}

/** sha256 over a blob that may come in several goes; knows nothing when bytes went past it. */
class RunningHash {
  #hash: Hash | undefined = createHash("sha256");
  #at = 0;

  /** Bytes from here on follow. */
  from(offset: number): void {
    if (offset === 0) this.#hash = createHash("sha256");
    else if (offset !== this.#at) this.#hash = undefined;
    this.#at = offset;
  }

  update(part: Buffer): void {
    this.#hash?.update(part);
    this.#at += part.length;
  }

  /** Throws WrongBytes; containerd verifies too, but cannot tell this from other refusals. */
  verify(blob: Blob): void {
    const found = this.#hash && `sha256:${this.#hash.digest("hex")}`;
    this.#hash = undefined;
    if (found !== undefined && found !== blob.digest) throw new WrongBytes(`${found} came`);
  }
}

/** The write call as question and answer. */
class WriteStream implements AsyncDisposable {
  readonly #call: ClientDuplexStream<WriteRequest, WriteAnswer>;
  readonly #signal: AbortSignal;
  readonly #over: Promise<void>;
  #failure: unknown;
  #waiting: { resolve: (a: WriteAnswer) => void; reject: (e: unknown) => void } | undefined;

  constructor(call: ClientDuplexStream<WriteRequest, WriteAnswer>, signal: AbortSignal) {
    this.#call = call;
    this.#signal = signal;
    call.on("data", (answer) => this.#take()?.resolve(answer));
    call.on("error", (e: ServiceError) => this.#fail(new ContainerdError("Content/Write", e)));
    this.#over = new Promise((resolve) => call.on("status", () => resolve()));
    void this.#over.then(() => this.#fail(new BrokenTransfer("containerd", new Error("the write ended too early"))));
    signal.addEventListener("abort", this.#abort, { once: true });
  }

  readonly #abort = () => {
    this.#fail(this.#signal.reason);
    this.#call.cancel();
  };

  #take() {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    return waiting;
  }

  #fail(e: unknown): void {
    this.#failure ??= e;
    this.#take()?.reject(this.#failure);
  }

  /** One at a time. */
  ask(request: WriteRequest): Promise<WriteAnswer> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#call.write(request);
    });
  }

  /** Waits until containerd let go of the ref: whoever writes or aborts it next would find it locked. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#signal.removeEventListener("abort", this.#abort);
    this.#call.end();
    const timer = setTimeout(() => this.#call.cancel(), 2_000);
    await this.#over;
    clearTimeout(timer);
  }
}
