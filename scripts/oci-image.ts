/**
 * Images made of local files, without a builder: OCI archives and `docker save` archives for tests and for the
 * sample function. The same input gives the same bytes.
 *
 * The tar writer is our own: ustar for files, directories and links is forty lines, fewer than the dependency.
 */
import { execFile } from "node:child_process";
import { createHash, type Hash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, mkdtemp, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { createGzip, createZstdCompress } from "node:zlib";

const run = promisify(execFile);

/** One entry of a layer. `path` is where it is in the image, absolute or not. Owner is root unless said otherwise. */
export type LayerEntry = {
  readonly path: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
} & (
  | { readonly file: string } // a file of this machine; its content only. Mode 0644 unless given
  | { readonly content: string | Buffer }
  | { readonly dir: true } // mode 0755 unless given
  | { readonly symlink: string }
);

export interface ImageSpec {
  /** Full reference with host and tag: `docker.io/library/sample:latest`. */
  readonly ref: string;
  readonly layers: readonly (readonly LayerEntry[])[];
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  /** `NAME=value` each; a PATH is put in front when there is none. */
  readonly env?: readonly string[];
  readonly workingDir?: string;
  readonly user?: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** As OCI names it; this machine's unless given. */
  readonly architecture?: string;
  /** Of the layers; default none, which is fastest. Docker archives never compress. */
  readonly compression?: "none" | "gzip" | "zstd";
}

/** The digests of what was written, each `sha256:…`. `manifest` is what a registry calls the image. */
export interface WrittenImage {
  readonly manifest: string;
  readonly config: string;
  readonly layers: readonly string[];
}

/**
 * Writes an OCI image layout as a tar archive: what `ctr images import`, `skopeo oci-archive:` and napd read. The same
 * image for further architectures makes it an index under the first one's reference; the digests are the first one's.
 */
export async function writeOciArchive(file: string, image: ImageSpec, ...others: ImageSpec[]): Promise<WrittenImage> {
  return writeArchive(file, async (dir) => {
    const images: OciImage[] = [];
    for (const spec of [image, ...others]) images.push(await writeOciImage(`${dir}/${images.length}`, spec));
    const [first] = images as [OciImage, ...OciImage[]];
    const top = others.length === 0 ? first.manifest : blobOf(indexType, indexOf(images.map(withPlatform)));
    const named = {
      ...(others.length === 0 ? withPlatform(first) : top.descriptor),
      annotations: {
        "io.containerd.image.name": image.ref,
        "org.opencontainers.image.ref.name": image.ref.slice(image.ref.lastIndexOf(":") + 1),
      },
    };
    const blobs = [...images.flatMap(({ layers, config, manifest }) => [...layers, config, manifest]), top];
    const entries: LayerEntry[] = [
      { path: "oci-layout", content: JSON.stringify({ imageLayoutVersion: "1.0.0" }) },
      { path: "index.json", content: JSON.stringify(indexOf([named])) },
      { path: "blobs", dir: true },
      { path: "blobs/sha256", dir: true },
      ...blobs.map((blob) => ({ ...blob.source, path: blobPath(blob) })),
    ];
    return { entries: withoutTwins(entries), written: digests(first.manifest, first.config, first.layers) };
  });
}

/** An image for one architecture. */
interface OciImage {
  readonly architecture: string;
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Layer[];
}

const indexType = "application/vnd.oci.image.index.v1+json";

function indexOf(manifests: readonly Descriptor[]): object {
  return { schemaVersion: 2, mediaType: indexType, manifests };
}

function withPlatform({ manifest, architecture }: OciImage): Descriptor {
  return { ...manifest.descriptor, platform: { architecture, os: "linux" } };
}

async function writeOciImage(dir: string, image: ImageSpec): Promise<OciImage> {
  await mkdir(dir);
  const layers = await writeLayers(dir, image, image.compression ?? "none");
  const config = blobOf("application/vnd.oci.image.config.v1+json", configOf(image, layers));
  const manifest = blobOf("application/vnd.oci.image.manifest.v1+json", {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: config.descriptor,
    layers: layers.map((layer) => layer.descriptor),
  });
  return { architecture: architectureOf(image), manifest, config, layers };
}

/** Writes what `docker save` writes, without its OCI half: manifest.json with RepoTags, and uncompressed layers. */
export async function writeDockerArchive(file: string, image: ImageSpec): Promise<WrittenImage> {
  return writeArchive(file, async (dir) => {
    const layers = await writeLayers(dir, image, "none");
    const config = blobOf("application/vnd.docker.container.image.v1+json", configOf(image, layers));
    const tars = layers.map((layer) => `${hexOf(layer)}/layer.tar`);
    const manifest = blobOf("application/json", [
      // docker writes the short name, which readers must lengthen again
      { Config: `${hexOf(config)}.json`, RepoTags: [image.ref.replace(/^docker\.io\/(library\/)?/, "")], Layers: tars },
    ]);
    const entries: LayerEntry[] = [
      ...layers.flatMap((layer, n) => [
        { path: hexOf(layer), dir: true as const },
        { ...layer.source, path: tars[n]! },
      ]),
      { ...config.source, path: `${hexOf(config)}.json` },
      { ...manifest.source, path: "manifest.json" },
    ];
    return { entries: withoutTwins(entries), written: digests(manifest, config, layers) };
  });
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture: string; readonly os: string };
}

interface Blob {
  readonly descriptor: Descriptor;
  readonly source: { readonly file: string } | { readonly content: Buffer };
}

interface Layer extends Blob {
  /** Digest of the uncompressed tar. */
  readonly diffId: string;
}

/** Layers go to temporary files, because an archive's index needs their digests. Renamed at the end: whole or absent. */
async function writeArchive(
  file: string,
  fill: (dir: string) => Promise<{ entries: LayerEntry[]; written: WrittenImage }>,
): Promise<WrittenImage> {
  const dir = await mkdtemp(`${file}.`);
  try {
    const { entries, written } = await fill(dir);
    await pipeline(Readable.from(tar(entries)), createWriteStream(`${dir}/archive`));
    await rename(`${dir}/archive`, file);
    return written;
  } finally {
    await rm(dir, { recursive: true });
  }
}

async function writeLayers(dir: string, image: ImageSpec, compression: "none" | "gzip" | "zstd"): Promise<Layer[]> {
  const layers: Layer[] = [];
  for (const entries of image.layers)
    layers.push(await writeLayer(`${dir}/layer-${layers.length}`, entries, compression));
  return layers;
}

const layerType = "application/vnd.oci.image.layer.v1.tar";
const compressors = {
  none: { suffix: "", open: () => undefined },
  gzip: { suffix: "+gzip", open: () => createGzip() },
  zstd: { suffix: "+zstd", open: () => createZstdCompress() },
};

async function writeLayer(
  file: string,
  entries: readonly LayerEntry[],
  compression: keyof typeof compressors,
): Promise<Layer> {
  const { suffix, open } = compressors[compression];
  const diff = createHash("sha256");
  const blob = createHash("sha256");
  const compressor = open();
  const steps = [hashing(diff), ...(compressor ? [compressor] : []), hashing(blob)];
  await pipeline([Readable.from(tar(entries)), ...steps, createWriteStream(file)]);
  const { size } = await stat(file);
  return {
    descriptor: { mediaType: layerType + suffix, digest: `sha256:${blob.digest("hex")}`, size },
    source: { file },
    diffId: `sha256:${diff.digest("hex")}`,
  };
}

function hashing(hash: Hash): Transform {
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      done(null, chunk);
    },
  });
}

function configOf(image: ImageSpec, layers: readonly Layer[]): unknown {
  const env = image.env ?? [];
  const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  return {
    created: "1970-01-01T00:00:00Z",
    architecture: architectureOf(image),
    os: "linux",
    config: {
      Env: env.some((entry) => entry.startsWith("PATH=")) ? env : [path, ...env],
      Entrypoint: image.entrypoint,
      Cmd: image.cmd,
      WorkingDir: image.workingDir,
      User: image.user,
      Labels: image.labels,
    },
    rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
    history: layers.map(() => ({ created: "1970-01-01T00:00:00Z" })),
  };
}

function architectureOf(image: ImageSpec): string {
  return image.architecture ?? (process.arch === "x64" ? "amd64" : process.arch);
}

function blobOf(mediaType: string, value: unknown): Blob {
  const content = Buffer.from(JSON.stringify(value));
  const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
  return { descriptor: { mediaType, digest, size: content.length }, source: { content } };
}

function hexOf(blob: Blob): string {
  return blob.descriptor.digest.slice("sha256:".length);
}

function blobPath(blob: Blob): string {
  return `blobs/sha256/${hexOf(blob)}`;
}

function digests(manifest: Blob, config: Blob, layers: readonly Layer[]): WrittenImage {
  return {
    manifest: manifest.descriptor.digest,
    config: config.descriptor.digest,
    layers: layers.map((layer) => layer.descriptor.digest),
  };
}

/** Two equal layers are one blob. */
function withoutTwins(entries: readonly LayerEntry[]): LayerEntry[] {
  return [...new Map(entries.map((entry) => [entry.path, entry])).values()];
}

// --- tar: POSIX.1-1988 ustar ---------------------------------------------------------------------------------------

async function* tar(entries: readonly LayerEntry[]): AsyncGenerator<Buffer> {
  for (const entry of entries) {
    const size = await sizeOf(entry);
    yield header(entry, size);
    if ("content" in entry) yield Buffer.from(entry.content);
    if ("file" in entry) yield* exactly(entry.file, size);
    if (size % 512) yield Buffer.alloc(512 - (size % 512));
  }
  yield Buffer.alloc(1024);
}

async function sizeOf(entry: LayerEntry): Promise<number> {
  if ("content" in entry) return Buffer.byteLength(entry.content);
  return "file" in entry ? (await stat(entry.file)).size : 0;
}

/** A file that grows or shrinks under our hands would shift every later header. */
async function* exactly(file: string, size: number): AsyncGenerator<Buffer> {
  let seen = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 20 }) as AsyncIterable<Buffer>) {
    seen += chunk.length;
    yield chunk;
  }
  if (seen !== size) throw new Error(`${file} changed while it was read`);
}

function header(entry: LayerEntry, size: number): Buffer {
  const block = Buffer.alloc(512);
  const type = "dir" in entry ? "5" : "symlink" in entry ? "2" : "0";
  const [prefix, name] = splitPath(entry.path.replace(/^\/+/, "") + (type === "5" ? "/" : ""));
  const octal = (value: number, at: number, length: number) =>
    block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
  block.write(name, 0);
  octal(entry.mode ?? { "5": 0o755, "2": 0o777, "0": 0o644 }[type], 100, 8);
  octal(entry.uid ?? 0, 108, 8);
  octal(entry.gid ?? 0, 116, 8);
  octal(size, 124, 12);
  octal(0, 136, 12); // modified at the epoch, so that the same input gives the same digest
  block.write(" ".repeat(8), 148); // the checksum counts its own field as blanks
  block.write(type, 156);
  if ("symlink" in entry) block.write(fitting(entry.symlink, 100), 157);
  block.write("ustar\x0000", 257);
  block.write(prefix, 345);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** A long path is cut at a slash into a prefix of at most 155 bytes and a name of at most 100. */
function splitPath(path: string): [prefix: string, name: string] {
  if (Buffer.byteLength(path) <= 100) return ["", path];
  const cut = path.indexOf("/", path.length - 101);
  if (cut < 0 || cut === path.length - 1) throw new Error(`too long for a tar header: ${path}`);
  return [fitting(path.slice(0, cut), 155), fitting(path.slice(cut + 1), 100)];
}

function fitting(text: string, bytes: number): string {
  if (Buffer.byteLength(text) > bytes) throw new Error(`too long for a tar header: ${text}`);
  return text;
}

// --- layers that tests and the sample are made of ------------------------------------------------------------------

/**
 * A small system: busybox with every applet it has, the users root, app (1000) and nobody, /tmp and app's home.
 * A static busybox (Debian: busybox-static) comes alone, any other with its libraries.
 */
export async function baseLayer(): Promise<LayerEntry[]> {
  const busybox = await realpath(await which("busybox"));
  const { stdout } = await run(busybox, ["--list"]);
  const applets = stdout.split("\n").filter((name) => name && name !== "busybox");
  return [
    ...["/bin", "/etc", "/home", "/root", "/usr", "/usr/bin", "/usr/local", "/usr/local/bin", "/var"].map(directory),
    { path: "/tmp", dir: true, mode: 0o1777 },
    { path: "/home/app", dir: true, uid: 1000, gid: 1000 },
    { path: "/etc/passwd", content: passwd },
    { path: "/etc/group", content: group },
    { path: "/bin/busybox", file: busybox, mode: 0o755 },
    ...applets.map((name): LayerEntry => ({ path: `/bin/${name}`, symlink: "busybox" })),
    ...(await librariesOf(busybox)),
  ];
}

const passwd = `root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
`;

const group = `root:x:0:
app:x:1000:
nogroup:x:65534:
`;

/** The watchdog that scripts/build-watchdog.ts made, at /usr/bin/fwatchdog, with the libraries that it needs. */
export async function watchdogLayer(): Promise<LayerEntry[]> {
  const file = watchdogBinary();
  return [{ path: "/usr/bin/fwatchdog", file, mode: 0o755 }, ...(await librariesOf(file))];
}

/** Where scripts/build-watchdog.ts leaves the binary for this machine. */
export function watchdogBinary(): string {
  return resolve(import.meta.dirname, `../dist/fwatchdog-linux-${process.arch}`);
}

/**
 * The loader and shared libraries of a program, each where the program looks for it. Empty for a static one.
 * ldd runs it under its own loader, so this works for programs of this machine only.
 */
export async function librariesOf(program: string): Promise<LayerEntry[]> {
  const lines = await ldd(program);
  const paths = lines.flatMap((line) => /=> (\/\S+) \(/.exec(line)?.[1] ?? /^\s+(\/\S+) \(/.exec(line)?.[1] ?? []);
  const missing = lines.find((line) => line.includes("not found"));
  if (missing) throw new Error(`${program} needs a library that this machine lacks: ${missing.trim()}`);
  const files = await Promise.all(paths.map(async (path) => ({ path, file: await realpath(path), mode: 0o755 })));
  return [...[...new Set(paths.flatMap(parents))].sort().map(directory), ...files];
}

async function ldd(program: string): Promise<string[]> {
  try {
    return (await run("ldd", [program])).stdout.split("\n");
  } catch (e) {
    const { stderr = "" } = e as { stderr?: string };
    if (/not a dynamic executable/.test(stderr)) return [];
    throw e;
  }
}

async function which(program: string): Promise<string> {
  try {
    return (await run("sh", ["-c", 'command -v "$1"', "sh", program])).stdout.trim();
  } catch (cause) {
    throw new Error(`${program} is not in PATH`, { cause });
  }
}

function directory(path: string): LayerEntry {
  return { path, dir: true };
}

/** `/lib/x/libc.so` -> `/lib`, `/lib/x`. */
function parents(path: string): string[] {
  const parent = dirname(path);
  return basename(parent) === "" ? [] : [...parents(parent), parent];
}
