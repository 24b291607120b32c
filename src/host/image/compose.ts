import { AppError, messageOf } from "../../base/errors.ts";
import { failpoint } from "../../base/failpoints.ts";
import { assemble, hasBlobs, type LocalImage, type StoredImage } from "./assemble.ts";
import { ingest, ingestBytes, type Source } from "./ingest.ts";
import {
  digestOf,
  type Entry,
  type ImageManifest,
  maxDocumentBytes,
  maxLayers,
  mediaTypes,
  type Platform,
  parseManifest,
} from "./manifest.ts";
import { isBadLayer, type Scope, type Tools } from "./tools.ts";

/** The base that has nothing in it, as in a Dockerfile. */
export const scratch = "scratch";

/** What a layer is put on. */
export interface Base {
  readonly layers: readonly Entry[];
  /** The configuration as it is written, with all its fields. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** A tar file, unpacked; without a source it is in the content store already. */
export interface Layer {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly source?: Source;
}

/** What the image shall have otherwise than its base; the rest stays. */
export interface ImageChanges {
  /** Added to the base's, or in place of what is there. */
  readonly env?: Readonly<Record<string, string>>;
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  readonly workingDir?: string;
  readonly user?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export function emptyBase({ os, architecture, variant }: Platform): Base {
  const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  const config = { architecture, ...(variant && { variant }), os, config: { Env: [path] }, rootfs: { type: "layers" } };
  return { layers: [], config };
}

/** An image that is here as a base. All of it is kept by the scope's lease from here on. Throws IMAGE_MISSING. */
export async function baseOf(tools: Tools, scope: Scope, { manifest }: LocalImage, ref: string): Promise<Base> {
  const { namespace, lease } = scope;
  const { leases, content } = tools.containerd;
  const blobs = [manifest.config, ...manifest.layers];
  await Promise.all(blobs.map(({ digest }) => leases.hold(namespace, lease, { id: digest, type: "content" })));
  if (!(await hasBlobs(tools, namespace, manifest))) throw new AppError("IMAGE_MISSING", [ref]);
  const config = await content.read(manifest.config.digest, maxDocumentBytes, { namespace });
  return { layers: manifest.layers, config: JSON.parse(config.toString()) };
}

/**
 * Puts a layer on a base, in the content store and unpacked; all but the image's record. The same parts give the same
 * digest. Throws IMAGE_BAD_LAYER, IMAGE_LAYER_MISSING, and what `ingest` and `assemble` throw.
 */
export async function compose(
  tools: Tools,
  scope: Scope,
  base: Base,
  layer: Layer,
  changes: ImageChanges,
  platform: Platform,
  signal: AbortSignal,
): Promise<StoredImage> {
  const { config, manifest } = documentsOf(base, layer, changes);
  await bringLayer(tools, scope, layer, signal);
  failpoint("compose.layer");
  await ingestBytes(tools, scope, digestOf(config), config, {}, signal);
  const parsed = parseManifest(scope.ref, manifest) as ImageManifest;
  const documents = [{ digest: digestOf(manifest), body: manifest, manifest: parsed, chosen: -1 }];
  try {
    const stored = await assemble(tools, scope, { documents, manifest: parsed }, platform, {}, signal);
    failpoint("compose.stored");
    return stored;
  } catch (e) {
    throw isBadLayer(e) ? new AppError("IMAGE_BAD_LAYER", [messageOf(e)], { cause: e }) : e;
  }
}

async function bringLayer(tools: Tools, scope: Scope, layer: Layer, signal: AbortSignal): Promise<void> {
  const { digest, size, source } = layer;
  if (source) return ingest(tools, scope, { digest, size, labels: {} }, source, () => {}, signal);
  const { leases, content } = tools.containerd;
  await leases.hold(scope.namespace, scope.lease, { id: digest, type: "content" });
  if (!(await content.info(digest, { namespace: scope.namespace })))
    throw new AppError("IMAGE_LAYER_MISSING", [digest, scope.namespace]); // it went between the look and the lease
}

/** Configuration and manifest of the new image, in OCI's form. Pure. Throws IMAGE_UNUSABLE for a base with too many layers. */
export function documentsOf(base: Base, layer: Layer, changes: ImageChanges): { config: Buffer; manifest: Buffer } {
  if (base.layers.length >= maxLayers)
    throw new AppError("IMAGE_UNUSABLE", [`its base has ${base.layers.length} layers; ${maxLayers} are the most`]);
  const config = Buffer.from(JSON.stringify(changedConfig(base, layer.digest, changes)));
  const manifest = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: mediaTypes.ociConfig, digest: digestOf(config), size: config.length },
    layers: [
      ...base.layers.map(({ mediaType, digest, size }) => ({ mediaType: ociLayerType(mediaType), digest, size })),
      { mediaType: mediaTypes.ociLayer, digest: layer.digest, size: layer.size },
    ],
  };
  return { config, manifest: Buffer.from(JSON.stringify(manifest)) };
}

type Json = Record<string, unknown>;
const objectOf = (value: unknown): Json => (typeof value === "object" && value !== null ? (value as Json) : {});
const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** The base's configuration with one layer more and the changes; what they do not name stays. image-spec, config.md. */
function changedConfig({ config: base }: Base, diffId: string, changes: ImageChanges): Json {
  const { env = {}, labels = {}, entrypoint, cmd, workingDir, user } = changes;
  const before = objectOf(base.config);
  const allLabels = { ...objectOf(before.Labels), ...labels };
  const history = listOf(base.history);
  const entry = { ...(base.created !== undefined && { created: base.created }), created_by: "napd: layer" };
  return {
    ...base,
    config: {
      ...before,
      Env: mergedEnv(listOf(before.Env).map(String), env),
      // as in a Dockerfile: arguments for another program make no sense
      ...(entrypoint && { Entrypoint: entrypoint, Cmd: [] }),
      ...(cmd && { Cmd: cmd }),
      ...(workingDir !== undefined && { WorkingDir: workingDir }),
      ...(user !== undefined && { User: user }),
      ...(Object.keys(allLabels).length > 0 && { Labels: allLabels }),
    },
    rootfs: { ...objectOf(base.rootfs), diff_ids: [...listOf(objectOf(base.rootfs).diff_ids), diffId] },
    // a base without one gets none: it has to tell of every layer or of none
    ...(history.length > 0 && { history: [...history, entry] }),
  };
}

/** A variable that is there keeps its place. */
function mergedEnv(before: readonly string[], changes: Readonly<Record<string, string>>): string[] {
  const left = new Map(Object.entries(changes));
  const kept = before.map((line) => {
    const name = line.split("=", 1)[0]!;
    const value = left.get(name);
    left.delete(name);
    return value === undefined ? line : `${name}=${value}`;
  });
  return [...kept, ...[...left].map(([name, value]) => `${name}=${value}`)];
}

/** What docker calls a layer, in OCI's words: one manifest speaks one language. */
function ociLayerType(type: string): string {
  const packing = /[.+](gzip|zstd)$/.exec(type)?.[1];
  const kind = /foreign|nondistributable/.test(type) ? "layer.nondistributable" : "layer";
  return `application/vnd.oci.image.${kind}.v1.tar${packing ? `+${packing}` : ""}`;
}
