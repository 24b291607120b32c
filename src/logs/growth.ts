import { watch } from "node:fs";
import { type Clock, within } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { LogFile } from "./log-file.ts";

/** While somebody writes, the file is looked at so often, ms: more often in a flood, less often when many talk. */
const activeMs = 100;
/** How soon after the last look a flood is looked at again, ms. */
const floodMs = 10;
/** How often a file is looked at that the kernel cannot watch, ms. */
const blindMs = 1000;

export interface GrowthOptions {
  clock: Clock;
  log: Logger;
  /** The file has grown; what is decided then comes before the next look. */
  onGrowth: (file: LogFile, bytes: number) => Promise<void>;
  /** Bytes that may come unseen. */
  stepBytes: () => number;
  /** How many files are being written to; shared by all. */
  active: { count: number };
}

/**
 * Keeps the marks of a file up to date until aborted. A silent file costs a watch of the kernel and no time; the first
 * byte wakes us, and from then on a timer looks until it is silent again: events of every single write would cost a
 * function that talks much, and us, more than they tell.
 */
export async function followGrowth(file: LogFile, options: GrowthOptions, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await waitForGrowth(file, options, signal);
      options.active.count++;
      try {
        await untilSilent(file, options, signal);
      } finally {
        options.active.count--;
      }
    } catch (e) {
      if (signal.aborted) break;
      options.log.warn({ file: file.path, err: messageOf(e) }, "a log cannot be watched; it is tried again");
      await options.clock.sleep(blindMs, signal).catch(() => {});
    }
  }
}

async function waitForGrowth(file: LogFile, options: GrowthOptions, signal: AbortSignal): Promise<void> {
  const touched = Promise.withResolvers<void>();
  const stop = () => touched.resolve();
  signal.addEventListener("abort", stop, { once: true });
  let watcher: ReturnType<typeof watch> | undefined;
  try {
    watcher = watch(file.path, { persistent: false }, stop);
    watcher.on("error", stop);
  } catch (e) {
    options.log.debug({ file: file.path, err: messageOf(e) }, "no watch; looking every second"); // too many, or no file
  }
  try {
    if (await grow(file, options)) return; // between the last look and the watch
    await (watcher ? touched.promise : within(touched.promise, blindMs, options.clock));
    await grow(file, options);
  } finally {
    signal.removeEventListener("abort", stop);
    watcher?.close();
  }
}

/** The first look comes soon, in case it is a flood; then as often as is needed, until one in all calm finds nothing. */
async function untilSilent(file: LogFile, options: GrowthOptions, signal: AbortSignal): Promise<void> {
  const { clock } = options;
  let isCalm = false;
  for (let pauseMs = floodMs; ; ) {
    const [size, at] = [file.size, clock.monotonic()];
    await clock.sleep(pauseMs, signal);
    const grew = await grow(file, options);
    if (!grew && isCalm) break;
    const perMs = Math.max(0, file.size - size) / Math.max(1, clock.monotonic() - at);
    const calmMs = Math.max(activeMs, options.active.count);
    pauseMs = grew ? Math.min(calmMs, Math.max(floodMs, options.stepBytes() / perMs)) : calmMs;
    isCalm = pauseMs === calmMs;
  }
  await file.save();
}

async function grow(file: LogFile, { onGrowth }: GrowthOptions): Promise<boolean> {
  const before = file.size;
  if (!(await file.refresh())) return false;
  await onGrowth(file, Math.max(0, file.size - before));
  return true;
}
