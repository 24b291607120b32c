import { createHash } from "node:crypto";
import { z } from "zod";
import { AppError } from "../../base/errors.ts";
import type { Descriptor } from "../containerd/types.ts";
import { isDigest } from "./reference.ts";

/** Largest manifest, index or configuration that is taken: what the OCI distribution spec recommends as a limit. */
export const maxDocumentBytes = 4 * 1024 * 1024;

export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  dockerIndex: "application/vnd.docker.distribution.manifest.list.v2+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
  ociLayer: "application/vnd.oci.image.layer.v1.tar",
} as const;

/** Of one image. */
export const maxLayers = 500;

/** The media types that are understood, as a registry is asked for them. */
export const acceptManifests = [
  mediaTypes.ociIndex,
  mediaTypes.dockerIndex,
  mediaTypes.ociManifest,
  mediaTypes.dockerManifest,
].join(", ");

const layerForm =
  /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs(?:\.foreign)?\.diff\.tar(?:\.gzip|\.zstd)?)$/;

/** What an image is made for. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

const digest = z.string().refine(isDigest, "is not a sha256 digest");
const descriptor = z.object({
  mediaType: z.string().max(255).default(""),
  digest,
  size: z.int().min(0),
  platform: z
    .object({ os: z.string(), architecture: z.string(), variant: z.string().optional() })
    .nullish()
    .transform((p) => p ?? undefined),
  annotations: z
    .record(z.string(), z.string())
    .nullish()
    .transform((a) => a ?? {}),
});
/** A descriptor as manifests hold it. */
export type Entry = z.infer<typeof descriptor>;

const documentSchema = z.object({
  schemaVersion: z.int().optional(),
  mediaType: z.string().max(255).optional(),
  manifests: z.array(descriptor).max(1000).optional(),
  config: descriptor.optional(),
  layers: z.array(descriptor).max(maxLayers).optional(),
});

const strings = z
  .array(z.string())
  .nullish()
  .transform((s) => s ?? []);
const string = z
  .string()
  .nullish()
  .transform((s) => s ?? "");
const configSchema = z.object({
  os: string,
  architecture: string,
  variant: string,
  config: z
    .object({ User: string, Env: strings, Entrypoint: strings, Cmd: strings, WorkingDir: string })
    .nullish()
    .transform((c) => c ?? { User: "", Env: [], Entrypoint: [], Cmd: [], WorkingDir: "" }),
  rootfs: z.object({ diff_ids: z.array(digest).max(maxLayers).default([]) }),
});
/** An image's own configuration: OCI image spec, config.md. */
export type ImageConfig = z.infer<typeof configSchema>;

export type Manifest =
  | { readonly kind: "index"; readonly mediaType: string; readonly manifests: Entry[] }
  | { readonly kind: "image"; readonly mediaType: string; readonly config: Entry; readonly layers: Entry[] };
export type ImageManifest = Extract<Manifest, { kind: "image" }>;

/** `sha256:` of these bytes. */
export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

function parse<T>(ref: string, what: string, schema: z.ZodType<T>, body: Buffer): T {
  const bad = (why: string) => new AppError("IMAGE_BAD_MANIFEST", [ref, `its ${what} ${why}`]);
  let json: unknown;
  try {
    json = JSON.parse(body.toString());
  } catch {
    throw bad("is not JSON");
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw bad(`is not valid: ${issue.path.join(".") || "it"}: ${issue.message}`);
}

/**
 * Understands a manifest or an index; `contentType` counts when the document does not name its own type.
 * Throws IMAGE_BAD_MANIFEST for `ref`, also for what is a manifest but not one of a container image.
 */
export function parseManifest(ref: string, body: Buffer, contentType = ""): Manifest {
  const bad = (why: string) => new AppError("IMAGE_BAD_MANIFEST", [ref, why]);
  const document = parse(ref, "manifest", documentSchema, body);
  if (document.schemaVersion === 1) throw bad("its manifest has the old schema 1");
  // One document that reads as two things is an attack: OCI distribution advisory GHSA-mc8v-mgrf-8f4m.
  if (document.manifests && (document.config || document.layers)) throw bad("its manifest is also an index");
  const mediaType = document.mediaType || contentType.replace(/;.*/, "").trim();

  if (document.manifests) {
    const type = mediaType === mediaTypes.dockerIndex ? mediaType : mediaTypes.ociIndex;
    return { kind: "index", mediaType: type, manifests: document.manifests };
  }
  const { config, layers } = document;
  if (!config || !layers) throw bad("its manifest has no config and layers");
  if (config.mediaType !== mediaTypes.ociConfig && config.mediaType !== mediaTypes.dockerConfig)
    throw bad(`it is not a container image but holds ${config.mediaType || "something unnamed"}`);
  for (const { mediaType: layerType } of layers)
    if (!layerForm.test(layerType)) throw bad(`it has a layer of the unknown type "${layerType}"`);
  if (config.size > maxDocumentBytes) throw bad(`its configuration is larger than ${maxDocumentBytes} bytes`);
  const type = mediaType === mediaTypes.dockerManifest ? mediaType : mediaTypes.ociManifest;
  return { kind: "image", mediaType: type, config, layers };
}

/** Understands an image's configuration. Throws IMAGE_BAD_MANIFEST, or IMAGE_PLATFORM when it is for another one. */
export function parseConfig(ref: string, body: Buffer, layers: number, wanted: Platform): ImageConfig {
  const config = parse(ref, "configuration", configSchema, body);
  if (config.rootfs.diff_ids.length !== layers)
    throw new AppError("IMAGE_BAD_MANIFEST", [
      ref,
      `it has ${layers} layers, but its configuration names ${config.rootfs.diff_ids.length}`,
    ]);
  const fits =
    (config.os === "" || config.os === wanted.os) &&
    (config.architecture === "" || config.architecture === wanted.architecture);
  if (!fits) throw new AppError("IMAGE_PLATFORM", [ref, formatPlatform(wanted), formatPlatform(config)]);
  return config;
}

/** This machine, in the words of images (GOOS and GOARCH). */
export function hostPlatform(arch: string = process.arch): Platform {
  const names: Record<string, string> = { x64: "amd64", ia32: "386" };
  return { os: "linux", architecture: names[arch] ?? arch, ...(arch === "arm" && { variant: "v7" }) };
}

export function formatPlatform(p: Platform): string {
  return [p.os || "unknown", p.architecture || "unknown", ...(p.variant ? [p.variant] : [])].join("/");
}

/**
 * The entry of an index for a platform: the highest variant of 32-bit Arm that this machine has, elsewhere the
 * plainest. Entries for unknown/unknown are attestations. Throws IMAGE_PLATFORM naming what there is.
 */
export function choosePlatform(ref: string, entries: readonly Entry[], wanted: Platform): Entry {
  const named = entries.filter((e) => e.platform && e.platform.os !== "unknown");
  const fitting = named
    .filter((e) => e.platform!.os === wanted.os && e.platform!.architecture === wanted.architecture)
    .map((entry) => ({ entry, rank: variantRank(entry.platform!, wanted) }))
    .filter((e) => e.rank >= 0)
    .sort((a, b) => b.rank - a.rank);
  if (fitting[0]) return fitting[0].entry;
  // An index need not say what its entries are for; the configuration will.
  const unnamed = entries.filter((e) => !e.platform);
  if (named.length === 0 && unnamed[0]) return unnamed[0];
  const there = [...new Set(named.map((e) => formatPlatform(e.platform!)))].join(", ") || "nothing";
  throw new AppError("IMAGE_PLATFORM", [ref, formatPlatform(wanted), there.slice(0, 300)]);
}

/** Higher fits better; below zero does not run here. */
function variantRank(offered: Platform, wanted: Platform): number {
  const level = (variant: string | undefined, otherwise: number) =>
    Number(/^v(\d+)$/.exec(variant ?? "")?.[1] ?? otherwise);
  if (wanted.architecture === "arm") {
    const offer = level(offered.variant, 7);
    return offer <= level(wanted.variant, 7) ? offer : -1;
  }
  // arm64 without a variant is v8, amd64 is v1; higher ones may use instructions that this processor lacks.
  const offer = level(offered.variant, wanted.architecture === "arm64" ? 8 : 1);
  return 100 - offer;
}

/** Chain ids of a list of diff ids, lowest layer first. OCI image spec, config.md, "Layer ChainID". */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(Buffer.from(`${below} ${diffId}`)));
  }
  return chain;
}

/** As containerd takes descriptors. */
export function toDescriptor(entry: { mediaType: string; digest: string; size: number }): Descriptor {
  return { media_type: entry.mediaType, digest: entry.digest, size: entry.size };
}
