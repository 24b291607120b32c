import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { lstat, mkdir, open, readdir, readlink, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { messageOf, systemCode } from "../../base/errors.ts";
import type { ImageRecord } from "../containerd/images.ts";
import type { Mount } from "../containerd/types.ts";
import { run } from "../exec.ts";
import type { Scope, Tools } from "./tools.ts";

/** Who an image's program runs as. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  readonly home?: string;
}

/** Resolves a USER against the texts of /etc/passwd and /etc/group, "" for a file that is not there. */
export type LookupUser = (user: string, passwd: string, group: string) => Identity;

/** How the read-only snapshots and the mount points of lookups begin; the mark of the process follows. */
export const viewPrefix = "napd-view-";

/** Far above any real one; a hostile image must not fill our memory. */
const maxFileBytes = 1024 * 1024;
const maxLinks = 40;

/** root without a look into the image: /etc/passwd could not say anything else that matters. */
const root: Identity = { uid: 0, gid: 0, additionalGids: [0], home: "/root" };
const rootNames = new Set(["", "0", "root", "0:0", "root:root"]);

const identityLabel = "napd.identity";
/** containerd's limit for key and value of a label together. contracts/containerd.md §1.1. */
const maxLabelBytes = 4096;

/** How a record remembers an identity. One with too many groups for a label is looked up again each time. */
export function identityLabels(identity: Identity): Record<string, string> {
  const text = JSON.stringify(identity);
  return Buffer.byteLength(text) + identityLabel.length > maxLabelBytes ? {} : { [identityLabel]: text };
}

/** What `identityLabels` wrote; undefined when nothing, or somebody else, did. */
export function identityIn(record: ImageRecord): Identity | undefined {
  try {
    const { uid, gid, additionalGids, home } = JSON.parse(record.labels[identityLabel] ?? "");
    const isWhole = [uid, gid].every(Number.isInteger) && Array.isArray(additionalGids);
    return isWhole ? { uid, gid, additionalGids, ...(typeof home === "string" && { home }) } : undefined;
  } catch {
    return undefined; // somebody else's label, or none
  }
}

/** The identity for an image's USER text, reading the image's files where they are needed: 11 to 18 ms. */
export async function findIdentity(
  tools: Tools,
  scope: Scope,
  chainId: string,
  user: string,
  lookupUser: LookupUser,
  runDir: string,
): Promise<Identity> {
  if (rootNames.has(user.trim())) return root;
  if (chainId === "") return lookupUser(user, "", "");
  const { passwd, group } = await withView(tools, scope, chainId, runDir, async (dir) => ({
    passwd: await readInside(dir, "/etc/passwd"),
    group: await readInside(dir, "/etc/group"),
  }));
  return lookupUser(user, passwd, group);
}

/** Mounts an image read-only for the time of `work`. contracts/containerd.md §8, "USER lookup". */
async function withView<T>(
  tools: Tools,
  scope: Scope,
  chainId: string,
  runDir: string,
  work: (dir: string) => Promise<T>,
): Promise<T> {
  const { snapshots } = tools.containerd;
  const key = `${viewPrefix}${tools.mark}-${randomBytes(6).toString("hex")}`;
  const dir = join(runDir, key);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => snapshots.remove(key, { namespace: scope.namespace }));
  const mounts = await snapshots.view(key, chainId, {}, { namespace: scope.namespace, lease: scope.lease });
  await mkdir(dir, { recursive: true, mode: 0o700 });
  undo.defer(() => rmdir(dir));
  for (const mount of mounts) {
    await mountReadOnly(mount, dir);
    undo.defer(async () => void (await run("umount", ["--lazy", dir])));
  }
  return await work(dir);
}

/** The `mount` program, because Node has no mount(2). */
async function mountReadOnly(mount: Mount, dir: string): Promise<void> {
  const { from, options } = shorten(mount.options);
  const isBind = options.includes("bind") || options.includes("rbind");
  const flags = ["nosuid", "nodev", "noexec", ...options.filter((o) => o !== "rw" && o !== "ro"), "ro"].join(",");
  const args = [...(isBind ? [] : ["-t", mount.type]), "-o", flags, mount.source, dir];
  // The new mount interface of util-linux 2.39 takes at most 256 bytes an option, which a few layers exceed.
  const [command, ...before] = from === "/" ? ["mount"] : ["env", "-C", from, "mount"];
  await run(command!, [...before, ...args], { env: { LIBMOUNT_FORCE_MOUNT2: "always" } });
}

/**
 * mount(2) takes one page of options, which the full paths of some fifty layers exceed: they are given relative to
 * the directory that they share, as containerd does.
 */
function shorten(options: readonly string[]): { from: string; options: string[] } {
  const at = options.findIndex((o) => o.startsWith("lowerdir="));
  const lower = options[at]?.slice("lowerdir=".length).split(":") ?? [];
  let from = dirname(lower[0] ?? "/");
  while (from !== "/" && !lower.every((dir) => dir.startsWith(`${from}/`))) from = dirname(from);
  if (lower.length < 2 || from === "/") return { from: "/", options: [...options] };
  const relative = lower.map((dir) => dir.slice(from.length + 1)).join(":");
  return { from, options: options.toSpliced(at, 1, `lowerdir=${relative}`) };
}

/**
 * Text of a regular file as a process with its root at `dir` would see it; "" when there is none such. Links cannot
 * lead out, and nothing is opened that could block or be a device.
 */
export async function readInside(dir: string, path: string): Promise<string> {
  const real = await resolveInside(dir, path);
  if (real === undefined) return "";
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  await using file = await open(real, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!(await file.stat()).isFile()) return "";
  const buffer = Buffer.alloc(maxFileBytes);
  let size = 0;
  while (size < maxFileBytes) {
    const { bytesRead } = await file.read(buffer, size, maxFileBytes - size, size);
    if (bytesRead === 0) break;
    size += bytesRead;
  }
  return buffer.toString("utf8", 0, size);
}

/** Component by component: an absolute link begins at `dir` again, and `..` ends there. */
async function resolveInside(dir: string, path: string): Promise<string | undefined> {
  const left = path.split("/");
  const found: string[] = [];
  let links = 0;
  while (left.length > 0) {
    const name = left.shift()!;
    if (name === "" || name === ".") continue;
    if (name === "..") {
      found.pop();
      continue;
    }
    const here = join(dir, ...found, name);
    const stat = await lstat(here).catch((e) => {
      if (["ENOENT", "ENOTDIR", "ENAMETOOLONG"].includes(systemCode(e) ?? "")) return undefined;
      throw e;
    });
    if (!stat) return undefined;
    // No file that is needed here is behind a fifo or a device; a link as the last part was followed before.
    if (stat.isSymbolicLink()) {
      if (++links > maxLinks) return undefined;
      const target = await readlink(here);
      if (target.startsWith("/")) found.length = 0;
      left.unshift(...target.split("/"));
    } else if (stat.isDirectory() || (stat.isFile() && left.every((l) => l === "" || l === "."))) found.push(name);
    else return undefined;
  }
  return join(dir, ...found);
}

/** Unmounts and removes what lookups of dead processes left in the run directory. */
export async function sweepViews(tools: Tools, runDir: string): Promise<void> {
  for (const name of await readdir(runDir).catch(() => [])) {
    if (!name.startsWith(viewPrefix) || name.startsWith(`${viewPrefix}${tools.mark}`)) continue;
    const dir = join(runDir, name);
    try {
      await run("umount", ["--lazy", dir]).catch(() => {}); // most often it is not mounted any more
      await rmdir(dir);
    } catch (e) {
      tools.log.warn({ dir, err: messageOf(e) }, "left mount point not removed");
    }
  }
}
