/**
 * The seam to what runs functions: today this machine, some day a cluster. Only these types cross it. Every
 * implementation and the fake sit the exam in test/contract/backend.ts.
 */
import type { FunctionId } from "../base/names.ts";

/** Which replica of what; also what an operator sees in the container's labels. */
export interface ReplicaIdentity extends FunctionId {
  /** Version of the function, see FunctionRow.generation. */
  readonly generation: number;
  /** 0, 1, … within the generation. */
  readonly number: number;
}

/** `NAME.GENERATION.NUMBER`: unique within its namespace, since names hold no dot. At most 63 + 12 characters. */
export function replicaId(r: ReplicaIdentity): string {
  return `${r.name}.${r.generation}.${r.number}`;
}

/** Everything a backend needs to start one replica. */
export interface ReplicaSpec extends ReplicaIdentity {
  /** What `prepare` answered. */
  readonly image: string;
  readonly env: Readonly<Record<string, string>>;
  /** Names in the function's namespace. */
  readonly secrets: readonly string[];
  readonly memoryBytes?: number;
  readonly cpus?: number;
  readonly readOnlyRoot: boolean;
  readonly watchdog: WatchdogChoice;
}

/**
 * Whose watchdog answers on the function's port: ours, brought into the container (`inject`), or whatever the image
 * runs (`image`). `auto`: ours where `env` says what to run per request and the image has no watchdog.
 */
export type WatchdogChoice = "auto" | "inject" | "image";

/** Where a replica answers. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface ObservedReplica extends ReplicaIdentity {
  /** `running` and `frozen` can serve; `dead` holds resources and no process, or cannot be reached any more. */
  readonly condition: "running" | "frozen" | "dead";
  readonly address: Address | null;
}

export interface ReplicaExit extends ReplicaIdentity {
  /** Null when nobody saw it end. */
  readonly exitCode: number | null;
  readonly outOfMemory: boolean;
}

/** What of a function's output is asked for. */
export interface LogQuery extends FunctionId {
  /** Of this replica only, by its `replicaId`. */
  readonly instance: string | undefined;
  /** No lines of before, ms since the epoch. */
  readonly since: number;
  /** At most so many of the lines that are there, the latest. */
  readonly tail: number | undefined;
  /** Goes on with what comes, of whichever replica, until it is aborted. */
  readonly follow: boolean;
}

/** One line of output: standard output and standard error alike. */
export interface LogLine extends FunctionId {
  /** `replicaId` of who said it. */
  readonly instance: string;
  /** Ms since the epoch, with fractions. */
  readonly time: number;
  /** Without line end; bytes that are no UTF-8 are U+FFFD. */
  readonly text: string;
}

/** What a replica has used, asleep or awake. */
export interface ReplicaStats extends ReplicaIdentity {
  /** CPU time since the replica was started. */
  readonly cpuNanoseconds: number;
  /** Working set: what could not be had back without swapping or killing. */
  readonly memoryBytes: number;
}

/** An image that is here, under one of its names. */
export interface ImageInfo {
  /** In its full form: `docker.io/library/web:1`; with the digest alone when no tag points to it any more. */
  readonly name: string;
  readonly namespace: string;
  readonly digest: string;
  /** Bytes, packed as a registry sends them; what it shares with others counts for each. 0 when it is not whole. */
  readonly size: number;
  /** Ms since the epoch. */
  readonly createdAt: number;
  /** Last deploy, or the end of the last function that ran it; ms since the epoch. */
  readonly usedAt: number;
  /** Names of the functions of the namespace that run it or may go back to it, sorted. */
  readonly usedBy: readonly string[];
}

/** An archive of images on its way in. */
export interface ImageUpload {
  readonly body: AsyncIterable<Buffer>;
  /** Bytes, if known beforehand. */
  readonly size?: number | undefined;
  /** For the only image of an archive, or to pick one of several; without it they keep the names they have there. */
  readonly name?: string | undefined;
}

/** An image on its way from its registry. */
export interface PullUnderWay {
  readonly namespace: string;
  /** In its full form. */
  readonly name: string;
  /** Bytes as the registry sends them; no total is known while its name is resolved. */
  readonly progress: {
    readonly phase: "resolve" | "download" | "unpack";
    readonly doneBytes: number;
    readonly totalBytes: number;
  };
}

/** How a composed image differs from its base besides the layer; what is not named stays as it is there. */
export interface ImageChanges {
  /** Added to the base's, or in place of what is there. */
  readonly env?: Readonly<Record<string, string>>;
  /** Takes the base's arguments with it. */
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  readonly workingDir?: string;
  readonly user?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

/** An image to be made of another one and a layer. */
export interface ImageComposition {
  readonly name: string;
  /** A reference, or `scratch` for nothing. */
  readonly base: string;
  /** When the registry is asked for the base. @default IfNotPresent, or Never where that is the setting */
  readonly pull?: PullPolicy | undefined;
  readonly changes: ImageChanges;
  /** `sha256:` of the layer as an unpacked tar file. Without a body it must be here already. */
  readonly layer?: string | undefined;
  /** The layer: a tar file, plain or packed by gzip. */
  readonly body?: AsyncIterable<Buffer> | undefined;
  /** Bytes of the body, if known beforehand. */
  readonly size?: number | undefined;
}

/** The images of a backend that keeps some. Which are needed it is told when it is made. */
export interface BackendImages {
  /** Sorted by name. */
  list(namespace: string): Promise<ImageInfo[]>;
  pulls(namespace: string): readonly PullUnderWay[];
  /** Fails with IMAGE_UNKNOWN, or IMAGE_IN_USE naming the functions; then nothing has changed. */
  remove(namespace: string, name: string): Promise<void>;
  /** OCI layout or `docker save`. Fails with IMAGE_BAD_ARCHIVE, IMAGE_TOO_LARGE or DISK_LOW; then nothing is left of it. */
  import(namespace: string, upload: ImageUpload, signal: AbortSignal): Promise<ImageInfo[]>;
  /**
   * The same parts give the same digest. Fails with IMAGE_LAYER_MISSING when only a digest is given and it is not here,
   * IMAGE_BAD_LAYER, IMAGE_TOO_LARGE, DISK_LOW, or as `prepare` does for the base; then nothing is left of it.
   */
  compose(namespace: string, composition: ImageComposition, signal: AbortSignal): Promise<ImageInfo>;
  /** Removes every image of these namespaces that is not needed, and answers with what went. */
  prune(namespaces: readonly string[]): Promise<Pick<ImageInfo, "name" | "namespace" | "digest" | "size">[]>;
}

export type PullPolicy = "Always" | "IfNotPresent" | "Never";

export interface Backend {
  /** Whether sleeping replicas can be frozen; where not, they are stopped. */
  readonly can: { readonly freeze: boolean };
  /**
   * Makes an image ready to start from and answers with a name that keeps meaning these bytes. Nothing is left
   * behind when it fails (IMAGE_*, DISK_LOW).
   */
  prepare(namespace: string, image: string, policy: PullPolicy, signal?: AbortSignal): Promise<string>;
  readonly images: BackendImages;
  /** Forgets a prepared image that no function needs any more. Idempotent. */
  release(namespace: string, image: string): Promise<void>;
  /** Starts a replica that is absent; its process runs, it need not listen yet. Leaves nothing when it fails. */
  start(spec: ReplicaSpec, signal?: AbortSignal): Promise<Address>;
  /** Ends a replica and frees all it holds, also of one half made or half gone. TERM, then KILL after `graceMs`, or
   * at once when `hurry` aborts. Idempotent. */
  stop(replica: ReplicaIdentity, graceMs: number, hurry?: AbortSignal): Promise<void>;
  freeze(replica: ReplicaIdentity): Promise<void>;
  thaw(replica: ReplicaIdentity): Promise<void>;
  list(): Promise<ObservedReplica[]>;
  /**
   * Tells about exits. A gap (`onGap`) means that some may have been missed: list again. Also called once at the
   * start. Disposing stops it.
   */
  watch(onExit: (exit: ReplicaExit) => void, onGap: () => void): Disposable;
  /** What every replica that has a process has used. Cheap enough for hundreds of replicas every few seconds. */
  stats(): Promise<ReplicaStats[]>;
  /** The last `bytes` bytes of a replica's output, as text. */
  tail(replica: ReplicaIdentity, bytes: number): Promise<string>;
  /**
   * What the replicas of a function have said, those that are gone included, in the order of time. Lines that are
   * longer than 64 KiB come in pieces. Ends quietly when `signal` aborts; read no faster than it is asked for.
   */
  logs(query: LogQuery, signal: AbortSignal): AsyncIterable<LogLine>;
  /** Whether the function has run here, be it that it is deleted. Need not be known for ever. */
  remembers(fn: FunctionId): Promise<boolean>;
  /** Frees whatever belongs to none of these replicas and functions: what a crash of napd left. */
  sweep(keep: {
    replicas: readonly ReplicaIdentity[];
    functions: readonly FunctionId[];
    images: readonly { namespace: string; image: string }[];
  }): Promise<void>;
  /** Removes what a function leaves beside its replicas: its logs. Idempotent. */
  forget(fn: FunctionId): Promise<void>;
  /** Makes room for a namespace's functions. Idempotent. Fails with NAMESPACE_TAKEN when the room is somebody else's. */
  addNamespace(namespace: string): Promise<void>;
  /**
   * Removes a namespace that was added and has no functions, and all that is kept for it: images, logs. Idempotent.
   * Fails with NAMESPACE_IN_USE when others keep something there.
   */
  removeNamespace(namespace: string): Promise<void>;
  /** A secret has changed: every replica that was given it, also a frozen one, finds the new bytes when this resolves. */
  refreshSecret(namespace: string, name: string): Promise<void>;
}
