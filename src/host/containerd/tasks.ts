import { type AnyMessage, type CallOptions, type Channel, isNotFound } from "./channel.ts";
import type { Mount, Timestamp } from "./types.ts";

const service = "containerd.services.tasks.v1.Tasks";

export type TaskStatus = "UNKNOWN" | "CREATED" | "RUNNING" | "STOPPED" | "PAUSED" | "PAUSING";

export interface TaskProcess {
  /** The container's id. */
  id: string;
  pid: number;
  status: TaskStatus;
  exit_status: number;
  exited_at: Timestamp | null;
}

export interface TaskCreate {
  container_id: string;
  rootfs: Mount[];
  /** Existing file or log URI; the shim writes to it. */
  stdout: string;
  stderr: string;
  options?: AnyMessage;
}

/** Tasks: the processes of containers. */
export class Tasks {
  readonly #channel: Channel;
  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Makes the task without starting it; answers with its pid. A bad command, mount or limit fails here, with code 2. */
  async create(request: TaskCreate, options: CallOptions): Promise<number> {
    return (
      await this.#channel.unary<object, { pid: number }>(service, "Create", request, { deadlineMs: 60_000, ...options })
    ).pid;
  }

  async start(containerId: string, options: CallOptions): Promise<void> {
    await this.#channel.unary(service, "Start", { container_id: containerId }, { deadlineMs: 30_000, ...options });
  }

  /** Undefined when there is none. */
  async get(containerId: string, options: CallOptions): Promise<TaskProcess | undefined> {
    try {
      return (
        await this.#channel.unary<object, { process: TaskProcess }>(
          service,
          "Get",
          { container_id: containerId },
          options,
        )
      ).process;
    } catch (e) {
      if (isNotFound(e)) return undefined;
      throw e;
    }
  }

  async list(options: CallOptions): Promise<TaskProcess[]> {
    return (
      await this.#channel.unary<object, { tasks: TaskProcess[] }>(
        service,
        "List",
        {},
        { deadlineMs: 30_000, ...options },
      )
    ).tasks;
  }

  /** False when there was nothing to signal any more. `all` reaches every process of the container. */
  async kill(containerId: string, signal: number, all: boolean, options: CallOptions): Promise<boolean> {
    try {
      await this.#channel.unary(service, "Kill", { container_id: containerId, signal, all }, options);
      return true;
    } catch (e) {
      if (isNotFound(e)) return false;
      throw e;
    }
  }

  /** The exit code, once the process has ended. No deadline: bound it with a signal. Undefined when there is no task. */
  async wait(containerId: string, options: CallOptions): Promise<number | undefined> {
    try {
      const call = { ...options, deadlineMs: null };
      return (
        await this.#channel.unary<object, { exit_status: number }>(service, "Wait", { container_id: containerId }, call)
      ).exit_status;
    } catch (e) {
      if (isNotFound(e)) return undefined;
      throw e;
    }
  }

  /** Freezes every process of it. Fails when it does not run. */
  async pause(containerId: string, options: CallOptions): Promise<void> {
    await this.#channel.unary(service, "Pause", { container_id: containerId }, options);
  }

  /** Fails when it is not paused. */
  async resume(containerId: string, options: CallOptions): Promise<void> {
    await this.#channel.unary(service, "Resume", { container_id: containerId }, options);
  }

  /** Deletes a task that has ended or never started, and drains its log. Idempotent. */
  async delete(containerId: string, options: CallOptions): Promise<void> {
    try {
      await this.#channel.unary(service, "Delete", { container_id: containerId }, { deadlineMs: 30_000, ...options });
    } catch (e) {
      if (!isNotFound(e)) throw e;
    }
  }
}
