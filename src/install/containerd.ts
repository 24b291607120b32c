import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../base/errors.ts";
import type { Machine } from "./machine.ts";
import { systemctl } from "./systemd.ts";

/** How long it may take to answer once it is started, ms. */
const startMs = 30_000;

/** Starts containerd where it does not run: distributions do that with its package, unless something was in the way. */
export async function ensureContainerd(machine: Machine): Promise<void> {
  const { socket } = machine.config.containerd;
  if (await answers(socket)) return;
  await systemctl(machine, "enable", "--now", "containerd.service");
  for (const end = performance.now() + startMs; !(await answers(socket)); await delay(100))
    if (performance.now() > end)
      throw new AppError("INSTALL", [`containerd does not answer at ${socket}`, "see journalctl -u containerd"]);
  machine.say("started containerd");
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.once("connect", () => resolve(true)).once("error", () => resolve(false));
    connection.once("connect", () => connection.destroy());
  });
}
