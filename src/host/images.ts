import { AppError } from "../base/errors.ts";
import { formatBytes } from "../base/quantities.ts";
import type { BackendImages, ImageComposition, ImageInfo, ImageUpload } from "../functions/backend.ts";
import type { ListedImage } from "./containerd/images.ts";
import type { Host } from "./context.ts";
import { scratch } from "./image/compose.ts";
import { receiveLayer } from "./image/layer.ts";
import { parseReference, pinName } from "./image/reference.ts";
import { spool } from "./image/spool.ts";
import { msOf, pinLabel, type UsedImage } from "./image/unused.ts";

/** See BackendImages. A record that only keeps what a tag points to as well is not shown: it has no meaning of its own. */
export function hostImages(host: Host): BackendImages {
  const { images, containerd } = host;
  return {
    async list(namespace) {
      const records = await containerd.images.list({ namespace });
      const named = new Set(records.filter((r) => !r.labels[pinLabel]).map(pinOf));
      const shown = records.filter((r) => !r.labels[pinLabel] || !named.has(r.name));
      const used = images.keeper.used();
      return (await Promise.all(shown.map((r) => describe(host, namespace, r, used)))).sort(byName);
    },

    pulls: (namespace) => images.pulls.list(namespace),

    async remove(namespace, name) {
      const ref = parseReference(name);
      const record = await containerd.images.get(ref.canonical, { namespace });
      if (!record) throw new AppError("IMAGE_UNKNOWN", [ref.canonical, namespace]);
      const { digest } = record.target;
      const pin = pinName(ref, digest);
      const content = { namespace, digest, names: [...new Set([ref.canonical, pin])] };
      // not by content, as a collection does: the same content under another name is nothing to who names this one
      const users = () => usersOf(namespace, pin, images.keeper.used());
      const isNeeded = () => users().length > 0 || images.keeper.isHeld(content);
      if (!(await images.keeper.remove(content, isNeeded))) throw inUse(ref.canonical, users());
    },

    import: (namespace, upload, signal) => importUpload(host, namespace, upload, signal),

    compose: (namespace, composition, signal) => composeImage(host, namespace, composition, signal),

    async prune(namespaces) {
      const sizes = new Map<string, number>();
      const key = (namespace: string, digest: string) => `${namespace} ${digest}`;
      for (const namespace of namespaces)
        for (const { name, target } of await containerd.images.list({ namespace }))
          sizes.set(key(namespace, target.digest), (await images.sizeOf(namespace, name, target.digest)) ?? 0);
      const removed = await images.keeper.prune(namespaces);
      return removed.flatMap(({ namespace, digest, names }) => {
        const tags = names.filter((name) => !name.includes("@"));
        const size = sizes.get(key(namespace, digest)) ?? 0;
        return (tags.length > 0 ? tags : names).map((name) => ({ name, namespace, digest, size }));
      });
    },
  };
}

/** Through a file, because an archive is read more than once and not in its order. */
async function importUpload(
  host: Host,
  namespace: string,
  { body, size, name }: ImageUpload,
  signal: AbortSignal,
): Promise<ImageInfo[]> {
  const { uploadsDir: dir, maxUploadBytes: maxBytes } = host.settings;
  const what = name === undefined ? "the uploaded archive" : `image ${parseReference(name).canonical}`;
  if (size !== undefined && size > maxBytes) throw new AppError("IMAGE_TOO_LARGE", [formatBytes(maxBytes)]);
  // once as it came, once as blobs, and unpacked it is at least as large
  await host.images.keeper.makeRoom(what, { data: size ?? 0, images: 2 * (size ?? 0) });
  using watch = host.images.keeper.watch(what, signal);
  await using file = await spool(body, { dir, maxBytes, signal: watch.signal });
  const archive = { path: file.path, label: "the uploaded archive", maxBytes };
  const imported = await host.images.import(namespace, archive, name, watch.signal);
  const records = await host.containerd.images.list({ namespace });
  const names = new Set(imported.map((image) => image.ref));
  const used = host.images.keeper.used();
  return Promise.all(records.filter((r) => names.has(r.name)).map((r) => describe(host, namespace, r, used)));
}

async function composeImage(
  host: Host,
  namespace: string,
  composition: ImageComposition,
  signal: AbortSignal,
): Promise<ImageInfo> {
  const { images, containerd, settings } = host;
  const { name, base, changes, body, size, layer: announced } = composition;
  const { uploadsDir: dir, maxUploadBytes: maxBytes } = settings;
  const what = `image ${parseReference(name).canonical}`;
  if (base !== scratch) parseReference(base); // what cannot be is known before a body is taken
  if (size !== undefined && size > maxBytes) throw new AppError("IMAGE_TOO_LARGE", [formatBytes(maxBytes)]);
  await images.keeper.makeRoom(what, { data: size ?? 0, images: 2 * (size ?? 0) });
  using watch = images.keeper.watch(what, signal);
  await using received = body && (await receiveLayer(body, { dir, maxBytes, signal: watch.signal }));
  if (received && announced !== undefined && received.digest !== announced)
    throw new AppError("IMAGE_BAD_LAYER", [`its digest is ${received.digest} and not ${announced}, as announced`]);
  const known = received ?? (announced && (await containerd.content.info(announced, { namespace })));
  if (!known) throw new AppError("IMAGE_LAYER_MISSING", [announced ?? "?", namespace]);
  const layer = received ?? { digest: known.digest, size: Number(known.size) };
  const pull = composition.pull ?? (settings.pullPolicy === "Never" ? "Never" : "IfNotPresent");
  const { ref } = await images.compose(namespace, { name, base, pull, layer, changes }, watch.signal);
  const record = (await containerd.images.list({ namespace }, [`name=="${ref}"`]))[0];
  if (!record) throw new AppError("IMAGE_UNKNOWN", [ref, namespace]); // removed at this very moment
  return describe(host, namespace, record, images.keeper.used());
}

async function describe(
  host: Host,
  namespace: string,
  record: ListedImage,
  used: readonly UsedImage[],
): Promise<ImageInfo> {
  const { name, target, created_at, updated_at } = record;
  return {
    name,
    namespace,
    digest: target.digest,
    size: (await host.images.sizeOf(namespace, name, target.digest)) ?? 0,
    createdAt: msOf(created_at),
    usedAt: msOf(updated_at),
    usedBy: functionsOf(usersOf(namespace, pinOf(record), used)),
  };
}

function usersOf(namespace: string, pin: string, used: readonly UsedImage[]): UsedImage[] {
  return used.filter((u) => u.namespace === namespace && u.image === pin);
}

function functionsOf(users: readonly UsedImage[]): string[] {
  return [...new Set(users.flatMap((u) => u.by ?? []))].sort();
}

function inUse(name: string, users: readonly UsedImage[]): AppError {
  const functions = functionsOf(users).slice(0, 20).join(", ");
  return new AppError("IMAGE_IN_USE", [name, functions ? `function ${functions}` : "a deployment that is under way"]);
}

/** What keeps the content of this record for a function; its own name when that is no reference of ours. */
function pinOf({ name, target }: ListedImage): string {
  try {
    return pinName(parseReference(name), target.digest);
  } catch {
    return name; // by another program
  }
}

function byName(a: ImageInfo, b: ImageInfo): number {
  return a.name < b.name ? -1 : 1;
}
