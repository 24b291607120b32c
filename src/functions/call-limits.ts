import { AppError } from "../base/errors.ts";
import { parseMemory } from "../base/quantities.ts";

/** What limits the calls of one function. */
export interface CallLimits {
  /** Calls that run at a time, over all replicas; 0: as many as come. */
  readonly maxInFlight: number;
  /** Calls beyond those that wait for their turn; further ones are refused. */
  readonly queue: number;
  /** Bytes of a request's body; 0: as many as come. */
  readonly maxBodyBytes: number;
}

export const noLimits: CallLimits = { maxInFlight: 0, queue: 0, maxBodyBytes: 0 };

/** Reads annotations `napd.max-inflight`, `napd.queue` and `napd.max-body`. Fails with BAD_FUNCTION, naming the annotation. */
export function callLimits(annotations: Readonly<Record<string, string>>, defaults: CallLimits): CallLimits {
  return {
    maxInFlight: count(annotations, "napd.max-inflight") ?? defaults.maxInFlight,
    queue: count(annotations, "napd.queue") ?? defaults.queue,
    maxBodyBytes: size(annotations, "napd.max-body") ?? defaults.maxBodyBytes,
  };
}

function count(annotations: Readonly<Record<string, string>>, name: string): number | undefined {
  const text = annotations[name];
  if (text === undefined) return undefined;
  if (!/^\d{1,6}$/.test(text))
    throw new AppError("BAD_FUNCTION", ["annotations", `${name} "${text}" is not a whole number from 0 to 999999`]);
  return Number(text);
}

function size(annotations: Readonly<Record<string, string>>, name: string): number | undefined {
  const text = annotations[name];
  if (text === undefined) return undefined;
  const bytes = text === "0" ? 0 : parseMemory(text);
  if (bytes === undefined)
    throw new AppError("BAD_FUNCTION", ["annotations", `${name} "${text}" is not a size such as 10Mi, or 0 for none`]);
  return bytes;
}
