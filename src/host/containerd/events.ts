import type { Clock } from "../../base/clock.ts";
import type { AnyMessage, Channel } from "./channel.ts";
import type { Timestamp } from "./types.ts";

/** What happened to a task. */
export type TaskEvent =
  | { kind: "exit"; namespace: string; containerId: string; pid: number; exitCode: number; exitedAt: Timestamp | null }
  | { kind: "oom"; namespace: string; containerId: string };

interface TaskExit {
  container_id: string;
  id: string;
  pid: number;
  exit_status: number;
  exited_at: Timestamp | null;
}

type Envelope = { namespace: string; topic: string; event: AnyMessage | null };

/** containerd's event stream. */
export class Events {
  readonly #channel: Channel;
  readonly #clock: Clock;
  constructor(channel: Channel, clock: Clock) {
    this.#channel = channel;
    this.#clock = clock;
  }

  /**
   * Exits and out-of-memory events of all namespaces until `signal` aborts, over restarts of containerd. Events are
   * never replayed, so `onOpen` is called each time a stream is open and before its first event: list again then.
   * `onGap` is told why a stream ended.
   */
  async follow(
    onOpen: () => void,
    onGap: (cause: unknown) => void,
    onEvent: (event: TaskEvent) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const filters = ['topic=="/tasks/exit"', 'topic=="/tasks/oom"'];
    while (!signal.aborted) {
      try {
        // The stream is live once the server has answered Version on the same connection after the subscription.
        const stream = this.#channel.stream<Envelope>(
          "containerd.services.events.v1.Events",
          "Subscribe",
          { filters },
          { deadlineMs: null, signal },
        );
        const first = stream.next();
        first.catch(() => {});
        await this.#channel.unary(
          "containerd.services.version.v1.Version",
          "Version",
          {},
          { deadlineMs: 60_000, signal },
        );
        onOpen();
        for (let next = await first; !next.done; next = await stream.next()) this.#deliver(next.value, onEvent);
      } catch (e) {
        if (!signal.aborted) onGap(e);
      }
      // also when containerd ended the stream politely: never a busy loop
      await this.#clock.sleep(100, signal).catch(() => {});
    }
  }

  #deliver(envelope: Envelope, onEvent: (event: TaskEvent) => void): void {
    if (!envelope.event) return;
    const namespace = envelope.namespace;
    if (envelope.topic === "/tasks/oom") {
      const { container_id } = this.#channel.decode<{ container_id: string }>("TaskOom", envelope.event);
      onEvent({ kind: "oom", namespace, containerId: container_id });
      return;
    }
    const exit = this.#channel.decode<TaskExit>("TaskExit", envelope.event);
    const { container_id: containerId, pid, exit_status: exitCode, exited_at: exitedAt } = exit;
    // `id` differs from the container's for exec'd processes
    if (exit.id === containerId) onEvent({ kind: "exit", namespace, containerId, pid, exitCode, exitedAt });
  }
}
