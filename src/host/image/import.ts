import { createHash } from "node:crypto";
import { z } from "zod";
import { type AppError, isAppError, messageOf } from "../../base/errors.ts";
import type { TarEntry } from "../../base/tar.ts";
import { Archive, gzipMagic, zstdMagic } from "./archive.ts";
import { type Assembly, assemble, blobsOf, followDocuments, type StoredImage } from "./assemble.ts";
import { ingest } from "./ingest.ts";
import {
  choosePlatform,
  digestOf,
  type Entry,
  type ImageManifest,
  maxDocumentBytes,
  mediaTypes,
  type Platform,
  parseManifest,
} from "./manifest.ts";
import { parseReference, type Reference } from "./reference.ts";
import { isBadLayer, type Scope, type Tools } from "./tools.ts";

export interface ArchiveFile {
  readonly path: string;
  /** What error texts call it. */
  readonly label: string;
  /** Of the tar file, when it is unpacked. @default unlimited */
  readonly maxBytes?: number;
}

export interface Imported {
  readonly ref: Reference;
  readonly stored: StoredImage;
}

/** An image of an archive, before anything of it is brought in. */
interface Candidate {
  readonly names: readonly Reference[];
  /** Understands its documents; where each of its blobs is. */
  load(platform: Platform): Promise<{ assembly: Assembly; blobs: ReadonlyMap<string, TarEntry> }>;
}

/**
 * Brings the images of an archive into containerd one by one, all but their records. `wanted` names the only image of
 * an archive, or picks one of several. Throws IMAGE_BAD_ARCHIVE and what `ingest` and `unpack` throw.
 */
export async function* importArchive(
  tools: Tools,
  scope: Scope,
  file: ArchiveFile,
  wanted: Reference | undefined,
  platform: Platform,
  signal: AbortSignal,
): AsyncGenerator<Imported> {
  await using archive = await Archive.open(file.path, signal, file);
  const all = archive.find("oci-layout") ? await readLayout(archive, platform) : await readDockerArchive(archive);
  for (const { names, load } of choose(archive, all, wanted)) {
    const startedAt = tools.clock.monotonic();
    const { assembly, blobs } = await load(platform);
    checkDigest(archive, assembly, names);
    const named = { ...scope, ref: names[0]!.canonical };
    // In the order of the archive: a compressed one can only be read forward.
    const wantedBlobs = blobsOf(assembly.manifest, {}).map((blob) => ({ blob, entry: blobs.get(blob.digest)! }));
    for (const { blob, entry } of wantedBlobs.toSorted((a, b) => a.entry.offset - b.entry.offset)) {
      if (entry.size !== blob.size)
        throw archive.bad(
          `its blob ${blob.digest} has ${entry.size} bytes and not the ${blob.size} that are announced`,
        );
      const source = { open: async (offset: number) => archive.read(entry, offset) };
      await ingest(tools, named, blob, source, () => {}, signal).catch((e) => {
        throw isAppError(e, "IMAGE_DIGEST_MISMATCH") ? archive.bad(`its blob ${blob.digest} is damaged`, e) : e;
      });
    }
    const stored = await assemble(tools, named, assembly, platform, {}, signal).catch((e) => {
      throw isBadLayer(e) ? archive.bad(`a layer in it cannot be unpacked (${messageOf(e)})`, e) : e;
    });
    const ms = Math.round(tools.clock.monotonic() - startedAt);
    tools.log.info({ image: named.ref, namespace: scope.namespace, digest: stored.top.digest, ms }, "image imported");
    for (const ref of names) yield { ref, stored };
  }
}

/** The images to bring in, each with at least one name. */
function choose(archive: Archive, all: readonly Candidate[], wanted: Reference | undefined): Candidate[] {
  if (all.length === 0) throw archive.bad("there is no image in it");
  const known =
    all
      .flatMap((c) => c.names.map((n) => n.canonical))
      .join(", ")
      .slice(0, 500) || "no names";
  if (wanted === undefined) {
    if (all.some((c) => c.names.length === 0)) throw archive.bad(`an image in it has no name (${known}); give it one`);
    return [...all];
  }
  const fitting = all.filter((c) => c.names.some((n) => n.canonical === wanted.canonical));
  const found = all.length === 1 ? all[0] : fitting[0];
  if (!found) throw archive.bad(`it has ${all.length} images (${known}), and none is ${wanted.canonical}`);
  return [{ ...found, names: [wanted] }];
}

/** A name with a digest must tell the truth. */
function checkDigest(archive: Archive, assembly: Assembly, names: readonly Reference[]): void {
  const { digest } = assembly.documents[0]!;
  const wrong = names.find((n) => n.digest !== undefined && n.digest !== digest);
  if (wrong) throw archive.bad(`the image in it has the digest ${digest}, not that of ${wrong.canonical}`);
}

function parseJson<T>(archive: Archive, name: string, schema: z.ZodType<T>, body: Buffer): T {
  let json: unknown;
  try {
    json = JSON.parse(body.toString());
  } catch {
    throw archive.bad(`${name} in it is not JSON`);
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw archive.bad(`${name} in it is not valid: ${issue.path.join(".")}: ${issue.message}`);
}

/** Names as an archive has them; a bad one is the archive's fault. */
function readName(archive: Archive, text: string): Reference {
  try {
    return parseReference(text);
  } catch (e) {
    throw archive.bad((e as AppError).message);
  }
}

// --- OCI image layout: image-spec, image-layout.md -----------------------------------------------------------------

const layoutSchema = z.object({ imageLayoutVersion: z.string() });

async function readLayout(archive: Archive, platform: Platform): Promise<Candidate[]> {
  const file = archive.find("index.json");
  if (!file) throw archive.bad("it has no index.json");
  const layout = await archive.readAll(archive.find("oci-layout")!, maxDocumentBytes);
  const version = parseJson(archive, "oci-layout", layoutSchema, layout).imageLayoutVersion;
  if (!version.startsWith("1.")) throw archive.bad(`its layout has the unknown version ${version.slice(0, 20)}`);
  const index = parseManifest("index.json", await archive.readAll(file, maxDocumentBytes));
  if (index.kind !== "index") throw archive.bad("its index.json is no index");

  const groups = Map.groupBy(index.manifests, (entry) => nameOf(archive, entry)?.canonical ?? "");
  if ((groups.get("")?.length ?? 0) > 1) throw archive.bad("it has several images without a name");
  return [...groups.values()].map((entries) => {
    // One name for several entries is an image for several platforms.
    const entry = entries.length === 1 ? entries[0]! : choosePlatform(`in ${archive.label}`, entries, platform);
    const name = nameOf(archive, entry);
    return {
      names: name ? [name] : [],
      load: (p) => loadLayout(archive, entry, name?.canonical ?? `in ${archive.label}`, p),
    };
  });
}

/** The reference name may be a tag alone: which image that is of is not written down then. */
function nameOf(archive: Archive, { annotations }: Entry): Reference | undefined {
  const full = annotations["io.containerd.image.name"] ?? annotations["org.opencontainers.image.ref.name"];
  return full && /[/:@]/.test(full) ? readName(archive, full) : undefined;
}

async function loadLayout(archive: Archive, target: Entry, ref: string, platform: Platform) {
  const blob = (digest: string) => {
    const entry = archive.find(`blobs/sha256/${digest.slice("sha256:".length)}`);
    if (!entry) throw archive.bad(`it lacks the blob ${digest}`);
    return entry;
  };
  const read = async (digest: string) => {
    const body = await archive.readAll(blob(digest), maxDocumentBytes);
    if (digestOf(body) !== digest) throw archive.bad(`its blob ${digest} is damaged`);
    return { digest, contentType: target.mediaType, body };
  };
  const assembly = await followDocuments(ref, platform, target.digest, read);
  const { config, layers } = assembly.manifest;
  return { assembly, blobs: new Map([config, ...layers].map((e) => [e.digest, blob(e.digest)])) };
}

// --- docker save ---------------------------------------------------------------------------------------------------

const dockerSchema = z
  .array(
    z.object({
      Config: z.string(),
      RepoTags: z
        .array(z.string())
        .nullish()
        .transform((tags) => tags ?? []),
      Layers: z
        .array(z.string())
        .max(500)
        .nullish()
        .transform((layers) => layers ?? []),
    }),
  )
  .max(1000);
type DockerImage = z.infer<typeof dockerSchema>[number];

async function readDockerArchive(archive: Archive): Promise<Candidate[]> {
  const file = archive.find("manifest.json");
  if (!file) throw archive.bad("it has neither oci-layout nor manifest.json");
  const images = parseJson(archive, "manifest.json", dockerSchema, await archive.readAll(file, maxDocumentBytes));
  return images.map((image) => ({
    names: image.RepoTags.map((tag) => readName(archive, tag)),
    load: () => loadDocker(archive, image),
  }));
}

/** Such an archive has no manifest: one is made of what is there, in OCI's form. */
async function loadDocker(archive: Archive, image: DockerImage) {
  const find = (name: string) => {
    const entry = archive.find(name.replace(/^\.\//, ""));
    if (!entry) throw archive.bad(`it lacks ${name.slice(0, 200)}`);
    return entry;
  };
  const configEntry = find(image.Config);
  const body = await archive.readAll(configEntry, maxDocumentBytes);
  const config = { mediaType: mediaTypes.ociConfig, digest: digestOf(body), size: body.length };
  const layers = await describeLayers(archive, image.Layers.map(find));

  const text = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: layers.map((l) => l.descriptor) };
  const document = Buffer.from(JSON.stringify(text));
  const manifest = parseManifest(`in ${archive.label}`, document) as ImageManifest;
  const documents = [{ digest: digestOf(document), body: document, manifest, chosen: -1 }];
  const blobs = new Map([[config.digest, configEntry], ...layers.map((l) => [l.descriptor.digest, l.entry] as const)]);
  return { assembly: { documents, manifest }, blobs };
}

/** Digests have to be computed; layers that are links to one another are read once, all in the archive's order. */
async function describeLayers(archive: Archive, entries: readonly TarEntry[]) {
  const known = new Map<number, { mediaType: string; digest: string; size: number }>();
  for (const entry of entries.toSorted((a, b) => a.offset - b.offset))
    if (!known.has(entry.offset)) known.set(entry.offset, await describeLayer(archive, entry));
  return entries.map((entry) => ({ entry, descriptor: known.get(entry.offset)! }));
}

async function describeLayer(archive: Archive, entry: TarEntry) {
  const hash = createHash("sha256");
  let start: Buffer = Buffer.alloc(0);
  for await (const piece of archive.read(entry)) {
    if (start.length < 4) start = Buffer.concat([start, piece.subarray(0, 4)]);
    hash.update(piece);
  }
  const suffix = start.subarray(0, 2).equals(gzipMagic)
    ? "+gzip"
    : start.subarray(0, 4).equals(zstdMagic)
      ? "+zstd"
      : "";
  const mediaType = `application/vnd.oci.image.layer.v1.tar${suffix}`;
  return { mediaType, digest: `sha256:${hash.digest("hex")}`, size: entry.size };
}
