import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Backend } from "./backend.ts";
import type { Row } from "./managed.ts";

/** A prepared image, and whose it is. */
export interface ImageUse {
  readonly namespace: string;
  readonly image: string;
}

/** The images that a function needs: of its version, and of the one to go back to. */
export function imagesOf({ namespace, version, previous }: Row): ImageUse[] {
  return [version, ...(previous ? [previous.version] : [])].map(({ image }) => ({ namespace, image }));
}

/** Lets go of a prepared image unless one of `rows` needs it. Never fails: what stays is released by the next sweep. */
export async function releaseImage(backend: Backend, use: ImageUse, rows: Iterable<Row>, log: Logger): Promise<void> {
  for (const row of rows) if (imagesOf(row).some((i) => i.namespace === use.namespace && i.image === use.image)) return;
  await backend
    .release(use.namespace, use.image)
    .catch((e) => log.warn({ image: use.image, err: messageOf(e) }, "image could not be released"));
}
