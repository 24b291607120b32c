import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { PullPolicy, ReplicaIdentity } from "../functions/backend.ts";
import type { Logs } from "../logs/logs.ts";
import type { Containerd } from "./containerd/client.ts";
import type { Freezer } from "./freezer.ts";
import type { Images } from "./image/images.ts";
import type { Cni } from "./net/cni.ts";
import { type SecretCopies, secretsRoot } from "./secrets.ts";

export interface HostSettings {
  /** Gone after a reboot, as the networks that it describes are. */
  readonly runDir: string;
  /** Prefix of the names of network namespaces, so that several napd can share a machine. */
  readonly bridge: string;
  readonly cgroupParent: string;
  /** runc's state directory; empty for containerd's choice. */
  readonly runcRoot: string;
  /** Uploads are kept here while they come in. */
  readonly uploadsDir: string;
  /** Bytes of an archive of images, packed and unpacked. */
  readonly maxUploadBytes: number;
  /** Of deploys that name none. */
  readonly pullPolicy: PullPolicy;
  readonly pidsLimit: number;
  /** The self-contained watchdog (scripts/build-watchdog.ts); need not exist as long as no image needs it. */
  readonly watchdogDir: string;
}

/** What every step on this machine works with. */
export interface Host {
  readonly settings: HostSettings;
  readonly containerd: Containerd;
  readonly images: Images;
  readonly cni: Cni;
  readonly logs: Logs;
  readonly freezer: Freezer;
  readonly clock: Clock;
  readonly log: Logger;
  readonly secrets: SecretCopies;
  /** Namespaces that functions live in. */
  readonly namespaces: () => readonly string[];
}

/** Labels on our containers, and on namespaces the name of the bridge of the napd that made them. */
export const labels = {
  fn: "napd.function",
  generation: "napd.generation",
  number: "napd.replica",
  owner: "napd.bridge",
} as const;

/** How everything of one replica is called on this machine. */
export interface Names {
  /** containerd namespace. */
  readonly namespace: string;
  /** Container and task. */
  readonly container: string;
  readonly snapshot: string;
  /** Unique on the machine: network results, copies of secrets. */
  readonly host: string;
  readonly netns: string;
  readonly secretsDir: string;
}

export function namesOf(settings: HostSettings, r: ReplicaIdentity): Names {
  const container = `${idPart(r.name)}.${r.generation}.${r.number}`;
  const host = `${idPart(r.namespace)}.${container}`;
  return {
    namespace: r.namespace,
    container,
    snapshot: `${snapshotPrefix}${container}`,
    host,
    netns: `${netnsPrefix(settings)}${host}`,
    secretsDir: join(secretsRoot(settings.runDir), host),
  };
}

export const snapshotPrefix = "napd/";

export function netnsPrefix(settings: HostSettings): string {
  return `${settings.bridge}.`;
}

/**
 * containerd's identifiers join letters and digits by single separators (contracts/containerd.md §1.1), but a DNS
 * label may hold `--`: such a name is replaced by a digest. Labels carry the identity, so nothing is read back from it.
 */
function idPart(name: string): string {
  return name.includes("--") ? `x${createHash("sha256").update(name).digest("hex").slice(0, 24)}` : name;
}
