import { formatBytes } from "../../base/quantities.ts";
import { assemble, blobsOf, followDocuments, missingBytes, type StoredImage } from "./assemble.ts";
import { ingest, type Source } from "./ingest.ts";
import { digestOf, type Platform } from "./manifest.ts";
import type { Reference } from "./reference.ts";
import type { Registry, Repository } from "./registry.ts";
import { eachOf, type Scope, type Tools } from "./tools.ts";

export interface PullProgress {
  readonly phase: "resolve" | "download" | "unpack";
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface PullHooks {
  onProgress: (progress: PullProgress) => void;
  /** Asked before anything is fetched: rejects when there is no room for so many bytes. */
  room: (bytes: number) => Promise<void>;
}

/** As containerd and docker do: more would not be faster, and each holds 4 MiB. */
const blobsAtOnce = 3;
const logEveryMs = 5_000;

/**
 * Brings an image from its registry into containerd, all but the image record: what it made lives by the scope's
 * lease until the caller has made one. Rejects with IMAGE_* errors, CONTAINERD, or the signal's reason.
 */
export async function pull(
  tools: Tools,
  scope: Scope,
  registry: Registry,
  ref: Reference,
  platform: Platform,
  { onProgress, room }: PullHooks,
  signal: AbortSignal,
): Promise<StoredImage> {
  const log = tools.log.child({ image: scope.ref, namespace: scope.namespace });
  const startedAt = tools.clock.monotonic();
  log.info("image pull started");
  onProgress({ phase: "resolve", doneBytes: 0, totalBytes: 0 });

  const repository = registry.repository(ref);
  const assembly = await followDocuments(scope.ref, platform, ref.digest ?? ref.tag!, (target) =>
    repository.manifest(target, signal),
  );
  const source = { [`containerd.io/distribution.source.${ref.host}`]: ref.repository };
  const blobs = blobsOf(assembly.manifest, source);
  // a layer is at least as large when it is unpacked; how much larger will be seen
  await room(2 * (await missingBytes(tools, scope.namespace, blobs)));
  const meter = new Meter(blobs);
  const report = (phase: "download" | "unpack") => onProgress({ phase, ...meter.read() });
  const timer = setInterval(() => log.info(meter.read(), "image pull goes on"), logEveryMs);
  try {
    report("download");
    await eachOf(blobs, blobsAtOnce, (blob) =>
      ingest(
        tools,
        scope,
        blob,
        blobSource(repository, blob.digest),
        (bytes) => {
          meter.set(blob.digest, bytes);
          report("download");
        },
        signal,
      ),
    );
    report("unpack");
    const stored = await assemble(tools, scope, assembly, platform, source, signal);
    const ms = Math.round(tools.clock.monotonic() - startedAt);
    log.info({ digest: stored.top.digest, size: formatBytes(meter.read().totalBytes), ms }, "image pulled");
    return stored;
  } finally {
    clearInterval(timer);
  }
}

/** Digest that the registry has for a reference now: by a HEAD where it answers that with one, else by the manifest. */
export async function remoteDigest(registry: Registry, ref: Reference, signal: AbortSignal): Promise<string> {
  const repository = registry.repository(ref);
  const target = ref.tag!;
  return (await repository.head(target, signal)) ?? digestOf((await repository.manifest(target, signal)).body);
}

function blobSource(repository: Repository, digest: string): Source {
  let fromMirror = false;
  return {
    async open(offset, signal) {
      const { body, mirror } = await repository.blob(digest, offset, signal);
      fromMirror = mirror;
      return body;
    },
    // Decided by where these very bytes came from: another blob may have ruled the mirrors out meanwhile.
    distrust() {
      if (fromMirror) repository.distrustMirrors();
      return fromMirror;
    },
  };
}

/** Bytes of all blobs together. */
class Meter {
  readonly #total: number;
  readonly #done = new Map<string, number>();

  constructor(blobs: readonly { size: number }[]) {
    this.#total = blobs.reduce((sum, blob) => sum + blob.size, 0);
  }

  set(digest: string, bytes: number): void {
    this.#done.set(digest, bytes);
  }

  read(): { doneBytes: number; totalBytes: number } {
    return { doneBytes: this.#done.values().reduce((sum, bytes) => sum + bytes, 0), totalBytes: this.#total };
  }
}
