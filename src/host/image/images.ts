import { type Clock, systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { failpoint } from "../../base/failpoints.ts";
import type { Logger } from "../../base/log.ts";
import type { Containerd } from "../containerd/client.ts";
import type { ImageRecord } from "../containerd/images.ts";
import { hasBlobs, type LocalImage, readLocal, type StoredImage, unpackImage } from "./assemble.ts";
import { type Base, baseOf, compose, emptyBase, type ImageChanges, type Layer, scratch } from "./compose.ts";
import {
  findIdentity,
  type Identity,
  identityIn,
  identityLabels,
  type LookupUser,
  sweepViews,
  viewPrefix,
} from "./identity.ts";
import { type ArchiveFile, type Imported, importArchive } from "./import.ts";
import { ingestPrefix } from "./ingest.ts";
import { type Keeper, type KeeperOptions, openKeeper } from "./keeper.ts";
import { hostPlatform, type Platform, toDescriptor } from "./manifest.ts";
import { pull, remoteDigest } from "./pull.ts";
import { PullsUnderWay } from "./pulls.ts";
import { parseReference, pinName, type Reference } from "./reference.ts";
import type { RegistrySettings } from "./registries.ts";
import { Registry } from "./registry.ts";
import { SharedWork } from "./shared-work.ts";
import { extractPrefix, leasePurposes, openTools, type Scope, type Tools, underLease } from "./tools.ts";
import { composedLabel, digestIn, importedLabel, pinLabel } from "./unused.ts";

export type PullPolicy = "Always" | "IfNotPresent" | "Never";

/** An image that containers can be made of. */
export interface ResolvedImage {
  /** What was asked for, in its full form. */
  readonly ref: string;
  /** Name of the record that keeps this very content, whatever becomes of the tag: `host/repository@sha256:…`. */
  readonly pin: string;
  /** Of what the reference points to: an index or a manifest. */
  readonly digest: string;
  /** Parent for snapshots of containers; "" for an image without layers. */
  readonly chainId: string;
  readonly config: {
    readonly entrypoint: readonly string[];
    readonly cmd: readonly string[];
    readonly env: readonly string[];
    readonly workingDir: string;
    readonly user: string;
  };
  /** What `config.user` is in this image. */
  readonly identity: Identity;
}

export interface ImagesOptions {
  containerd: Containerd;
  /** How registries are reached that are not simply there by HTTPS. */
  registries?: readonly RegistrySettings[];
  /** Logins in the format of docker's `config.json`; need not exist yet. */
  credentialsFile?: string | undefined;
  /** Directory for mount points of a moment; made when missing. */
  runDir: string;
  lookupUser: LookupUser;
  /** In Node's words (`x64`, `arm64`, `arm`). @default this machine's */
  arch?: string;
  log: Logger;
  /** @default the system's */
  clock?: Clock;
  /** Which images stay and how full the disk may get. Without it nothing is removed and nothing refused. */
  keeper?: KeeperOptions;
}

/** What is put together to an image. */
export interface Composition {
  readonly name: string;
  readonly base: string;
  /** For the base. */
  readonly pull: PullPolicy;
  readonly layer: Layer;
  readonly changes: ImageChanges;
}

/** Documents of images kept parsed, by digest. */
const maxKnown = 256;

/** Images of this machine: the front of this room. All methods may be called at any time and at once. */
export class Images implements AsyncDisposable {
  readonly keeper: Keeper;
  readonly pulls = new PullsUnderWay();
  readonly #tools: Tools;
  readonly #registry: Registry;
  readonly #platform: Platform;
  readonly #runDir: string;
  readonly #lookupUser: LookupUser;
  readonly #pulls = new SharedWork<string, ResolvedImage>();
  /** `namespace digest`: what its documents say never changes. */
  readonly #known = new Map<string, LocalImage>();
  readonly #closing = new AbortController();

  private constructor(options: ImagesOptions) {
    const { containerd, registries = [], credentialsFile, log, clock = systemClock } = options;
    this.#tools = openTools(containerd, clock, log);
    this.keeper = openKeeper(this.#tools, options.keeper);
    this.#registry = new Registry({ registries, credentialsFile, clock, log });
    this.#platform = hostPlatform(options.arch);
    this.#runDir = options.runDir;
    this.#lookupUser = options.lookupUser;
  }

  static async open(options: ImagesOptions): Promise<Images> {
    return new Images(options);
  }

  /** From now on registries are reached so; what is under way goes on as it began. */
  useRegistries(settings: readonly RegistrySettings[]): void {
    this.#registry.useRegistries(settings);
  }

  /** Ends every pull under way; they clean up after themselves. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new AppError("SHUTTING_DOWN", []));
    await this.#pulls.idle();
    await this.#registry[Symbol.asyncDispose]();
  }

  /**
   * Makes sure that the image is here and unpacked, and pins it. `Always` asks the registry, and is content when the
   * answer is what is here; `IfNotPresent` asks only for what is missing; `Never` asks nobody. A digest cannot have
   * changed, so it is never asked for again. Callers with the same image share one pull; it ends early when the last
   * of them leaves. Rejects with IMAGE_* errors, DISK_LOW, CONTAINERD, or the signal's reason.
   */
  async ensure(namespace: string, reference: string, policy: PullPolicy, signal?: AbortSignal): Promise<ResolvedImage> {
    const ref = parseReference(reference);
    return this.#share(`${policy} ${namespace} ${ref.canonical}`, signal, async (ending) => {
      using _ = await this.keeper.hold(namespace, ref.canonical);
      await this.keeper.makeRoom(`image ${ref.canonical}`, {});
      using watch = this.keeper.watch(`image ${ref.canonical}`, ending);
      const record = await this.#tools.containerd.images.get(ref.canonical, { namespace });
      const here = record && (await this.#present(namespace, ref, record, policy, watch.signal));
      if (here) await this.#touch(namespace, record);
      if (here) return here;
      if (policy === "Never") throw new AppError("IMAGE_MISSING", [ref.canonical]);
      return await this.#pull(namespace, ref, watch.signal);
    });
  }

  #share(key: string, signal: AbortSignal | undefined, work: (s: AbortSignal) => Promise<ResolvedImage>) {
    return this.#pulls.join(key, (s) => work(AbortSignal.any([s, this.#closing.signal])), signal);
  }

  /** What is here already, unpacked where it was not; undefined when it must be pulled. */
  async #present(
    namespace: string,
    ref: Reference,
    record: ImageRecord,
    policy: PullPolicy,
    signal: AbortSignal,
  ): Promise<ResolvedImage | undefined> {
    const { digest } = record.target;
    const mayMove = ref.digest === undefined && !record.labels[composedLabel]; // no registry knows what was composed
    if (policy === "Always" && mayMove && (await remoteDigest(this.#registry, ref, signal)) !== digest)
      return undefined;
    const local = await this.#local(namespace, ref.canonical, digest);
    if (!local) return undefined;
    const unpacked = await this.#isUnpacked(namespace, local.chainId);
    const pinned = unpacked && (await this.#resolved(namespace, ref, local, record));
    if (pinned) return pinned;
    if (!unpacked && !(await hasBlobs(this.#tools, namespace, local.manifest))) return undefined;
    return underLease(this.#tools, namespace, "image", ref.canonical, async (scope) => {
      await unpackImage(this.#tools, scope, local.manifest, local.config, signal);
      return this.#pin(scope, ref, local);
    });
  }

  /** Says that it was used just now: containerd notes when a record was written last. */
  async #touch(namespace: string, { name, labels, target }: ImageRecord): Promise<void> {
    await this.#tools.containerd.images.put({ name, labels, target }, { namespace });
  }

  #pull(namespace: string, ref: Reference, signal: AbortSignal): Promise<ResolvedImage> {
    return underLease(this.#tools, namespace, "pull", ref.canonical, async (scope) => {
      const room = (bytes: number) => this.keeper.makeRoom(`image ${ref.canonical}`, { images: bytes });
      using shown = this.pulls.begin(namespace, ref.canonical);
      const hooks = { room, onProgress: shown.report };
      const stored = await pull(this.#tools, scope, this.#registry, ref, this.#platform, hooks, signal);
      return this.#record(scope, ref, stored, {});
    });
  }

  /** Makes the records of a new image, its own name last: from then on it is there. */
  async #record(
    scope: Scope,
    ref: Reference,
    stored: StoredImage,
    labels: Record<string, string>,
  ): Promise<ResolvedImage> {
    const { images } = this.#tools.containerd;
    const { namespace } = scope;
    const pin = pinName(ref, stored.top.digest);
    const wasPinned = await images.get(pin, { namespace });
    const resolved = await this.#pin(scope, ref, stored);
    if (pin === ref.canonical) return resolved;
    try {
      failpoint("image.pinned");
      const {
        [importedLabel]: _,
        [composedLabel]: __,
        ...before
      } = (await images.get(ref.canonical, { namespace }))?.labels ?? {};
      const target = toDescriptor(stored.top);
      await images.put({ name: ref.canonical, labels: { ...before, ...labels }, target }, { namespace });
    } catch (e) {
      if (!wasPinned) await images.delete(pin, { namespace });
      throw e;
    }
    return resolved;
  }

  /** Makes the record by digest, with the identity that the image's USER has. */
  async #pin(scope: Scope, ref: Reference, stored: StoredImage): Promise<ResolvedImage> {
    const { images } = this.#tools.containerd;
    const { namespace } = scope;
    const name = pinName(ref, stored.top.digest);
    const before = await images.get(name, { namespace });
    const identity =
      (before && identityIn(before)) ??
      (await findIdentity(
        this.#tools,
        scope,
        stored.chainId,
        stored.config.config.User,
        this.#lookupUser,
        this.#runDir,
      ));
    const labels = { ...before?.labels, [pinLabel]: "true", ...identityLabels(identity) };
    await images.put({ name, labels, target: toDescriptor(stored.top) }, { namespace });
    return toResolved(ref, stored, identity);
  }

  /**
   * An image that is here, unpacked and pinned; undefined otherwise. `reference` is a reference or a pin. Two or three
   * calls to containerd.
   */
  async resolve(namespace: string, reference: string): Promise<ResolvedImage | undefined> {
    const ref = parseReference(reference);
    const record = await this.#tools.containerd.images.get(ref.canonical, { namespace });
    const local = record && (await this.#local(namespace, ref.canonical, record.target.digest));
    if (!local) return undefined;
    const [unpacked, resolved] = await Promise.all([
      this.#isUnpacked(namespace, local.chainId),
      this.#resolved(namespace, ref, local, record),
    ]);
    return unpacked ? resolved : undefined;
  }

  /** From the pin alone; undefined when there is none that knows the identity. */
  async #resolved(
    namespace: string,
    ref: Reference,
    local: LocalImage,
    record: ImageRecord,
  ): Promise<ResolvedImage | undefined> {
    const name = pinName(ref, local.top.digest);
    const pin = record.name === name ? record : await this.#tools.containerd.images.get(name, { namespace });
    const identity = pin?.labels[pinLabel] && identityIn(pin);
    return identity ? toResolved(ref, local, identity) : undefined;
  }

  async #local(namespace: string, ref: string, digest: string): Promise<LocalImage | undefined> {
    const key = `${namespace} ${digest}`;
    const known = this.#known.get(key) ?? (await readLocal(this.#tools, namespace, ref, digest, this.#platform));
    if (!known) return undefined;
    this.#known.delete(key); // and in again: the map is in the order of use
    this.#known.set(key, known);
    if (this.#known.size > maxKnown) this.#known.delete(this.#known.keys().next().value!);
    return known;
  }

  async #isUnpacked(namespace: string, chainId: string): Promise<boolean> {
    return chainId === "" || (await this.#tools.containerd.snapshots.stat(chainId, { namespace })) !== undefined;
  }

  /**
   * Brings the images of an archive in: OCI layout or `docker save`, as a tar file, plain or compressed. They get the
   * names that the archive has for them; `reference` names the only one of an archive, or picks one of several.
   * Rejects with IMAGE_BAD_ARCHIVE, IMAGE_TOO_LARGE and the errors of `ensure`; then none of the images is here.
   */
  async import(
    namespace: string,
    file: string | ArchiveFile,
    reference?: string,
    signal?: AbortSignal,
  ): Promise<ResolvedImage[]> {
    const wanted = reference === undefined ? undefined : parseReference(reference);
    const from = typeof file === "string" ? { path: file, label: file } : file;
    const what = wanted?.canonical ?? from.label;
    const ending = AbortSignal.any([this.#closing.signal, ...(signal ? [signal] : [])]);
    using watch = this.keeper.watch(`image ${what}`, ending);
    return await underLease(this.#tools, namespace, "import", what, async (scope) => {
      const imported: Imported[] = [];
      for await (const one of importArchive(this.#tools, scope, from, wanted, this.#platform, watch.signal))
        imported.push(one);
      const resolved: ResolvedImage[] = [];
      for (const { ref, stored } of imported)
        resolved.push(await this.#record({ ...scope, ref: ref.canonical }, ref, stored, { [importedLabel]: "true" }));
      return resolved;
    });
  }

  /**
   * Makes an image of a base and a layer, and pins it. The base is fetched as `ensure` does. Rejects with
   * IMAGE_BAD_LAYER, IMAGE_LAYER_MISSING and the errors of `ensure`; then the image is not here.
   */
  async compose(namespace: string, c: Composition, signal?: AbortSignal): Promise<ResolvedImage> {
    const ref = parseReference(c.name);
    if (ref.digest) throw new AppError("IMAGE_BAD_REFERENCE", [c.name, "a digest follows from the content"]);
    const base = c.base === scratch ? undefined : parseReference(c.base);
    const ending = AbortSignal.any([this.#closing.signal, ...(signal ? [signal] : [])]);
    using _ = await this.keeper.hold(namespace, ref.canonical);
    using __ = base && (await this.keeper.hold(namespace, base.canonical));
    if (base) await this.ensure(namespace, c.base, c.pull, ending);
    return await underLease(this.#tools, namespace, "compose", ref.canonical, async (scope) => {
      const below = base ? await this.#base(scope, base.canonical) : emptyBase(this.#platform);
      const stored = await compose(this.#tools, scope, below, c.layer, c.changes, this.#platform, ending);
      return this.#record(scope, ref, stored, { [composedLabel]: "true" });
    });
  }

  async #base(scope: Scope, ref: string): Promise<Base> {
    const record = await this.#tools.containerd.images.get(ref, { namespace: scope.namespace });
    const local = record && (await this.#local(scope.namespace, ref, record.target.digest));
    if (!local) throw new AppError("IMAGE_MISSING", [ref]);
    return baseOf(this.#tools, scope, local, ref);
  }

  /** Bytes of the blobs and documents of an image that is here; undefined when it is not whole, or for other machines. */
  async sizeOf(namespace: string, name: string, digest: string): Promise<number | undefined> {
    const local = await this.#local(namespace, name, digest).catch(() => undefined);
    return local?.size;
  }

  /** Takes the name away; what a pin keeps stays. Idempotent. Waits until garbage collection freed the space. */
  async remove(namespace: string, reference: string): Promise<void> {
    await this.#tools.containerd.images.delete(parseReference(reference).canonical, { namespace, sync: true });
  }

  /** Gives back what `ensure` pinned. Idempotent; the space is freed by the next garbage collection. */
  async unpin(namespace: string, pin: string): Promise<void> {
    const digest = digestIn(pin);
    const same = digest ? await this.#tools.containerd.images.list({ namespace }, [`target.digest==${digest}`]) : [];
    if (same.some((record) => record.name === pin))
      for (const record of same) if (record.name !== pin) await this.#touch(namespace, record); // used until now
    await this.#tools.containerd.images.delete(pin, { namespace });
  }

  /** Names of all pins of the namespace, for whoever knows which are still needed. */
  async pins(namespace: string): Promise<string[]> {
    const records = await this.#tools.containerd.images.list({ namespace });
    return records.filter((r) => r.labels[pinLabel]).map((r) => r.name);
  }

  /** Removes what a process that died in a pull, an import or a lookup left behind. Never touches work under way. */
  async sweep(namespace: string): Promise<void> {
    const { containerd, leases, log, mark } = this.#tools;
    const call = { namespace };
    const isDead = (name: string, prefix: string) => name.startsWith(prefix) && !name.startsWith(`${prefix}${mark}-`);
    let removed = 0;
    for (const { ref } of await containerd.content.listIngests(call))
      if (isDead(ref, ingestPrefix)) {
        await containerd.content.abort(ref, call);
        removed++;
      }
    for (const { name } of await containerd.snapshots.list(call))
      if (isDead(name, extractPrefix) || isDead(name, viewPrefix)) {
        await containerd.snapshots.remove(name, call);
        removed++;
      }
    for (const id of await containerd.leases.listOurs(namespace))
      if (leasePurposes.some((p) => id.startsWith(`napd-${p}-`)) && !leases.has(id)) {
        await containerd.leases.delete(namespace, id);
        removed++;
      }
    await sweepViews(this.#tools, this.#runDir);
    if (removed > 0) log.info({ namespace, removed }, "leftovers of unfinished pulls removed");
  }
}

function toResolved(ref: Reference, stored: StoredImage, identity: Identity): ResolvedImage {
  const { Entrypoint, Cmd, Env, WorkingDir, User } = stored.config.config;
  return {
    ref: ref.canonical,
    pin: pinName(ref, stored.top.digest),
    digest: stored.top.digest,
    chainId: stored.chainId,
    config: { entrypoint: Entrypoint, cmd: Cmd, env: Env, workingDir: WorkingDir, user: User },
    identity,
  };
}
