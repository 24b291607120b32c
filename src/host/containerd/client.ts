import { systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { Channel } from "./channel.ts";
import { Containers } from "./containers.ts";
import { Content } from "./content.ts";
import { Diff } from "./diff.ts";
import { Events } from "./events.ts";
import { Images } from "./images.ts";
import { Leases } from "./leases.ts";
import { Namespaces } from "./namespaces.ts";
import { Snapshots } from "./snapshots.ts";
import { Tasks } from "./tasks.ts";
import { Server } from "./version.ts";

/** containerd, typed: one member per service. Works with 1.6, 1.7 and 2.x without a branch. */
export interface Containerd extends Disposable {
  readonly channel: Channel;
  readonly server: Server;
  readonly namespaces: Namespaces;
  readonly leases: Leases;
  readonly content: Content;
  readonly images: Images;
  readonly diff: Diff;
  readonly snapshots: Snapshots;
  readonly containers: Containers;
  readonly tasks: Tasks;
  readonly events: Events;
}

export interface ContainerdOptions {
  /** Absolute path of the unix socket. */
  socket: string;
  /** @default "overlayfs" */
  snapshotter?: string;
  /** How long to wait for containerd to answer, in ms. @default 10000 */
  timeoutMs?: number;
}

/** Connects. Fails with CONTAINERD_UNAVAILABLE, or HOST_LACKS when the snapshotter is not usable. */
export async function openContainerd(options: ContainerdOptions): Promise<Containerd> {
  const { socket, snapshotter = "overlayfs", timeoutMs = 10_000 } = options;
  const channel = await Channel.open(socket);
  try {
    const server = new Server(channel);
    await server.version(timeoutMs).catch((cause) => {
      throw new AppError("CONTAINERD_UNAVAILABLE", [socket], { cause });
    });
    const usable = await server.snapshotters();
    if (!usable.includes(snapshotter)) {
      throw new AppError("HOST_LACKS", [
        `a containerd snapshotter "${snapshotter}"`,
        `set containerd.snapshotter to one of ${usable.join(", ")}`,
      ]);
    }
    return {
      channel,
      server,
      namespaces: new Namespaces(channel),
      leases: new Leases(channel),
      content: new Content(channel),
      images: new Images(channel),
      diff: new Diff(channel),
      snapshots: new Snapshots(channel, snapshotter),
      containers: new Containers(channel),
      tasks: new Tasks(channel),
      events: new Events(channel, systemClock),
      [Symbol.dispose]: () => channel[Symbol.dispose](),
    };
  } catch (e) {
    channel[Symbol.dispose]();
    throw e;
  }
}
