import { AppError } from "../../base/errors.ts";
import { isNotFound } from "../containerd/channel.ts";
import { type Blob, ingestBytes } from "./ingest.ts";
import {
  chainIds,
  choosePlatform,
  digestOf,
  type Entry,
  type ImageConfig,
  type ImageManifest,
  type Manifest,
  maxDocumentBytes,
  type Platform,
  parseConfig,
  parseManifest,
} from "./manifest.ts";
import type { Scope, Tools } from "./tools.ts";
import { unpack } from "./unpack.ts";

/** An image whose documents are understood: what its name points to, down to the manifest for this platform. */
export interface Assembly {
  /** From the top (what the tag points to) to the image's manifest; one entry when there is no index. */
  readonly documents: readonly Document[];
  readonly manifest: ImageManifest;
}

export interface Document {
  readonly digest: string;
  readonly body: Buffer;
  readonly manifest: Manifest;
  /** The entry of an index that is used, by its position. */
  readonly chosen: number;
}

/** An image that is in containerd. */
export interface StoredImage {
  readonly top: { readonly mediaType: string; readonly digest: string; readonly size: number };
  /** Name of the snapshot with all layers; "" for an image without layers. */
  readonly chainId: string;
  readonly config: ImageConfig;
}

/** An index of indexes is allowed; deeper ones are nobody's honest work. */
const maxDepth = 4;

/** Follows the documents from `target` down to an image for `platform`; `read` gives a document's bytes. */
export async function followDocuments(
  ref: string,
  platform: Platform,
  target: string,
  read: (target: string) => Promise<{ digest: string; contentType: string; body: Buffer }>,
): Promise<Assembly> {
  const documents: Document[] = [];
  for (let next = target; ; ) {
    const { digest, contentType, body } = await read(next);
    const manifest = parseManifest(ref, body, contentType);
    if (manifest.kind === "image") {
      documents.push({ digest, body, manifest, chosen: -1 });
      return { documents, manifest };
    }
    if (documents.length === maxDepth)
      throw new AppError("IMAGE_BAD_MANIFEST", [ref, "its index is nested too deeply"]);
    const entry = choosePlatform(ref, manifest.manifests, platform);
    documents.push({ digest, body, manifest, chosen: manifest.manifests.indexOf(entry) });
    next = entry.digest;
  }
}

/** Blobs of an image besides its documents, each once. */
export function blobsOf(manifest: ImageManifest, labels: Record<string, string>): Blob[] {
  const blobs = new Map<string, Blob>();
  for (const { digest, size } of [manifest.config, ...manifest.layers]) blobs.set(digest, { digest, size, labels });
  return [...blobs.values()];
}

/**
 * Makes an image whole of which configuration and layers are in the content store: unpacks it, then writes the
 * documents, children first, with the labels that keep what they refer to from garbage collection.
 * Label names are those of ctr and nerdctl: contracts/containerd.md §3.
 */
export async function assemble(
  tools: Tools,
  scope: Scope,
  assembly: Assembly,
  platform: Platform,
  labels: Record<string, string>,
  signal: AbortSignal,
): Promise<StoredImage> {
  const { documents, manifest } = assembly;
  const body = await readDocument(tools, scope.namespace, manifest.config.digest);
  if (!body) throw new Error(`configuration ${manifest.config.digest} vanished under its lease`);
  const config = parseConfig(scope.ref, body, manifest.layers.length, platform);
  const chainId = await unpackImage(tools, scope, manifest, config, signal);
  for (const document of documents.toReversed())
    await ingestBytes(tools, scope, document.digest, document.body, { ...labels, ...childLabels(document) }, signal);
  const top = documents[0]!;
  return { top: { mediaType: top.manifest.mediaType, digest: top.digest, size: top.body.length }, chainId, config };
}

/** Unpacks, and ties the snapshot to the configuration that names it. */
export async function unpackImage(
  tools: Tools,
  scope: Scope,
  manifest: ImageManifest,
  config: ImageConfig,
  signal: AbortSignal,
): Promise<string> {
  const chainId = await unpack(tools, scope, manifest.layers, config.rootfs.diff_ids, signal);
  const { content, snapshots } = tools.containerd;
  const label = { [`containerd.io/gc.ref.snapshot.${snapshots.snapshotter}`]: chainId };
  if (chainId) await content.label(manifest.config.digest, label, { namespace: scope.namespace });
  return chainId;
}

function childLabels({ manifest, chosen }: Document): Record<string, string> {
  if (manifest.kind === "index")
    return { [`containerd.io/gc.ref.content.m.${chosen}`]: manifest.manifests[chosen]!.digest };
  const layers = manifest.layers.map((l, i) => [`containerd.io/gc.ref.content.l.${i}`, l.digest]);
  return { "containerd.io/gc.ref.content.config": manifest.config.digest, ...Object.fromEntries(layers) };
}

/** An image as the content store has it. */
export interface LocalImage extends StoredImage {
  readonly manifest: ImageManifest;
  /** Bytes of its documents and blobs. */
  readonly size: number;
}

/** Reads an image's documents from the content store; undefined when one is missing. Layers are not looked at. */
export async function readLocal(
  tools: Tools,
  namespace: string,
  ref: string,
  target: string,
  platform: Platform,
): Promise<LocalImage | undefined> {
  const read = async (digest: string) => {
    const body = await readDocument(tools, namespace, digest);
    if (!body) throw new Absent();
    return { digest, contentType: "", body };
  };
  try {
    const { documents, manifest } = await followDocuments(ref, platform, target, read);
    const config = parseConfig(ref, (await read(manifest.config.digest)).body, manifest.layers.length, platform);
    const top = documents[0]!;
    const chainId = chainIds(config.rootfs.diff_ids).at(-1) ?? "";
    return {
      top: { mediaType: top.manifest.mediaType, digest: top.digest, size: top.body.length },
      chainId,
      config,
      manifest,
      size: sum([...documents.map((d) => d.body.length), ...blobsOf(manifest, {}).map((b) => b.size)]),
    };
  } catch (e) {
    if (e instanceof Absent) return undefined;
    throw e;
  }
}

class Absent extends Error {}

/** Undefined when it is not in the namespace, or is not what its digest says. */
async function readDocument(tools: Tools, namespace: string, digest: string): Promise<Buffer | undefined> {
  try {
    const body = await tools.containerd.content.read(digest, maxDocumentBytes, { namespace });
    return digestOf(body) === digest ? body : undefined;
  } catch (e) {
    if (isNotFound(e)) return undefined;
    throw e;
  }
}

/** Bytes of those blobs that are not in the namespace. */
export async function missingBytes(tools: Tools, namespace: string, blobs: readonly Blob[]): Promise<number> {
  const missing = await Promise.all(
    blobs.map(async ({ digest, size }) => ((await tools.containerd.content.info(digest, { namespace })) ? 0 : size)),
  );
  return sum(missing);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, n) => total + n, 0);
}

/** Whether every blob of the image is in the namespace. */
export async function hasBlobs(tools: Tools, namespace: string, manifest: ImageManifest): Promise<boolean> {
  const entries: Entry[] = [manifest.config, ...manifest.layers];
  const found = await Promise.all(entries.map((e) => tools.containerd.content.info(e.digest, { namespace })));
  return found.every((info) => info !== undefined);
}
