import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, readdir, readFile, readlink, realpath, stat } from "node:fs/promises";
import { dirname, join, posix, relative, resolve, sep } from "node:path";
import { tarEnd, tarHeader, tarPadding } from "../base/tar.ts";
import { Failure } from "./failure.ts";
import { Ignore } from "./ignore.ts";

/** One thing of a layer. */
export type Packed =
  | { readonly kind: "file"; readonly source: string; readonly mode: number; readonly size: number }
  | { readonly kind: "folder" }
  | { readonly kind: "link"; readonly target: string };

/** By path in the layer, without a slash in front. */
export type Files = Map<string, Packed>;

export interface FolderOptions {
  /** Where the folder goes in the layer, without slashes around it; empty for the top. */
  readonly to: string;
  /** Folders that links may lead into; the folder itself is always one. */
  readonly within: readonly string[];
  /** Paths of the folder that are passed over. */
  readonly except?: (path: string) => boolean;
}

/** What was found in a folder. */
export interface Collected {
  /** Files that `.dockerignore` or `.gitignore` leave out: how many, and which file says so. */
  readonly leftOut: { readonly count: number; readonly by: string };
  /** Neither files nor folders, such as sockets. */
  readonly odd: readonly string[];
}

/**
 * Adds what is in a folder (absolute) to `files`, over what is there. Links that stay within it are kept; others are
 * followed if they lead into `within`, and refused if not: they would put files of the machine into an image.
 */
export async function collect(files: Files, folder: string, options: FolderOptions): Promise<Collected> {
  const root = await realpath(folder);
  const ignore = await Ignore.open(root);
  const allowed = [root, ...(await Promise.all(options.within.map((path) => realpath(path))))];
  const odd: string[] = [];
  let leftOut = 0;

  /** `tree`: the folder whose inner links need no following; `above`: the real folders that `source` is in. */
  async function add(source: string, path: string, tree: string, above: readonly string[]): Promise<void> {
    const target = posix.join(options.to, path);
    let found = await lstat(source);
    let real = source;
    if (found.isSymbolicLink()) {
      real = await realpath(source).catch(() => {
        throw new Failure(`${source} is a link to what is not there`);
      });
      if (isWithin(real, tree)) {
        files.set(target, { kind: "link", target: await innerLink(source, real, tree) });
        return;
      }
      if (!allowed.some((dir) => isWithin(real, dir)))
        throw new Failure(
          `${source} is a link to ${real}, outside of the project; copy the files, or run nap in a folder above both`,
        );
      if (above.some((dir) => isWithin(dir, real))) throw new Failure(`${source} is a link to a folder that it is in`);
      found = await stat(real);
    }
    if (found.isDirectory()) {
      files.set(target, { kind: "folder" });
      await fill(real, path, real === source ? tree : real, [...above, real]);
    } else if (found.isFile())
      files.set(target, { kind: "file", source: real, mode: found.mode & 0o111 ? 0o755 : 0o644, size: found.size });
    else odd.push(path);
  }

  async function fill(source: string, path: string, tree: string, above: readonly string[]): Promise<void> {
    await ignore.enter(path);
    for (const entry of await readdir(source, { withFileTypes: true })) {
      const child = path === "" ? entry.name : `${path}/${entry.name}`;
      if (options.except?.(child)) continue;
      if (!ignore.leavesOut(child, entry.isDirectory())) await add(join(source, entry.name), child, tree, above);
      else {
        if (!ignore.isNever(child)) leftOut++;
        if (entry.isDirectory() && ignore.mayReturn(child))
          await fill(join(source, entry.name), child, tree, [...above, join(source, entry.name)]);
      }
    }
  }

  await fill(root, "", root, [root]);
  return { leftOut: { count: leftOut, by: ignore.by }, odd };
}

const isWithin = (path: string, folder: string): boolean =>
  path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);

/** The text of a link that leads to the same place wherever its tree stands. */
async function innerLink(source: string, real: string, tree: string): Promise<string> {
  const text = await readlink(source);
  const stays = !text.startsWith("/") && isWithin(resolve(dirname(source), text), tree);
  return stays ? text : relative(dirname(source), real);
}

/** Bytes that are kept between the two readings of a layer, so that small ones are read once. */
const keptBytes = 16 * 1024 * 1024;
const readAtOnceBytes = 1024 * 1024;

export interface PackedLayer {
  /** Of the tar file. */
  readonly digest: string;
  /** Bytes of the tar file. */
  readonly size: number;
  open(): AsyncGenerator<Buffer>;
}

/**
 * The files as a tar file, the same bytes for the same content: sorted, without times, with modes that say no more than
 * whether something can be run. All of it belongs to `uid` and `gid`.
 */
export async function packLayer(files: Files, owner: { uid: number; gid: number }): Promise<PackedLayer> {
  const hash = createHash("sha256");
  let kept: Buffer[] | undefined = [];
  let size = 0;
  for await (const piece of tarOf(files, owner)) {
    hash.update(piece);
    size += piece.length;
    if (size > keptBytes) kept = undefined;
    kept?.push(piece);
  }
  const whole = kept;
  return {
    digest: `sha256:${hash.digest("hex")}`,
    size,
    async *open() {
      yield* whole ?? tarOf(files, owner);
    },
  };
}

async function* tarOf(files: Files, owner: { uid: number; gid: number }): AsyncGenerator<Buffer> {
  const all = { ...owner, mtime: 0 };
  for (const [name, packed] of [...files].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (packed.kind === "folder") yield tarHeader({ name: `${name}/`, type: "5", mode: 0o755, ...all });
    else if (packed.kind === "link") yield tarHeader({ name, type: "2", mode: 0o777, target: packed.target, ...all });
    else {
      const { source, size, mode } = packed;
      yield tarHeader({ name, size, mode, ...all });
      yield* contentOf(source, size);
      yield tarPadding(size);
    }
  }
  yield tarEnd;
}

async function* contentOf(source: string, size: number): AsyncGenerator<Buffer> {
  let left = size;
  if (size <= readAtOnceBytes) {
    const content = await readFile(source);
    left -= content.length;
    yield content;
  } else
    for await (const piece of createReadStream(source, { end: size - 1, highWaterMark: readAtOnceBytes })) {
      left -= piece.length;
      yield piece;
    }
  if (left !== 0) throw new Failure(`${source} has changed while it was read; try again`);
}
