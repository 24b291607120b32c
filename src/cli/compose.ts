import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { createGzip } from "node:zlib";
import { formatBytes } from "../base/quantities.ts";
import type { Reply } from "./answers.ts";
import { refused } from "./answers.ts";
import { Failure } from "./failure.ts";
import type { Gateway } from "./gateway.ts";
import type { PackedLayer } from "./pack.ts";

/** How an image differs from its base besides the layer; reference.md, "Composing". */
export interface Changes {
  readonly env?: Readonly<Record<string, string>>;
  readonly entrypoint?: readonly string[];
  readonly workingDir?: string;
  readonly user?: string;
}

export interface Composition {
  /** Without a tag: that follows from the content. */
  readonly repository: string;
  readonly namespace?: string | undefined;
  readonly base: string;
  readonly changes: Changes;
  readonly layer: PackedLayer;
  /** Asks the registry whether there is a newer base. */
  readonly pull: boolean;
}

export interface ComposedImage {
  readonly name: string;
  readonly digest: string;
  /** Functions that run this very content. */
  readonly usedBy: readonly string[];
}

const path = "/system/images";

/**
 * Has napd make an image of a base and a layer. The layer is sent only if it is not there yet. Its name is as it was
 * given: `REPOSITORY:up-HASH`.
 */
export async function composeImage(
  gateway: Gateway,
  { repository, namespace, base, changes, layer, pull }: Composition,
  tell: (text: string) => void,
): Promise<{ image: ComposedImage; name: string; sent: boolean }> {
  const config = JSON.stringify(changes);
  const name = `${repository}:${contentTag([base, config, layer.digest])}`;
  const query = { name, base, config, layer: layer.digest, namespace, ...(pull && { pull: "Always" }) };
  tell(`composing on ${base}`);
  // a base may have to be fetched first: no limit
  const first = await gateway.request("POST", path, { query, timeoutMs: 0 });
  if (first.status === 201) return { image: imageIn(first), name, sent: false };
  if (first.status === 405 || (first.status === 404 && !first.text.includes(layer.digest)))
    throw new Failure(
      `${gateway.url} cannot make images of folders, only napd does; a builder can: install buildah or docker`,
    );
  if (first.status !== 404) throw refused(gateway.url, first);
  const reply = await send(gateway, layer, query, tell);
  if (reply.status !== 201) throw refused(gateway.url, reply);
  return { image: imageIn(reply), name, sent: true };
}

/** The same for the same content, so that a tag never means two things. */
function contentTag(parts: readonly string[]): string {
  return `up-${createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 12)}`;
}

const tagForm = /:up-[0-9a-f]{12}$/;

/** Whether an image was made by this, of the same repository, of other content. */
export function isSuperseded(image: string, by: string): boolean {
  return image !== by && tagForm.test(image) && image.replace(tagForm, "") === by.replace(tagForm, "");
}

const imageIn = (reply: Reply): ComposedImage => JSON.parse(reply.text)[0];

async function send(
  gateway: Gateway,
  layer: PackedLayer,
  query: Record<string, string | undefined>,
  tell: (text: string) => void,
): Promise<Reply> {
  const total = formatBytes(layer.size);
  async function* counted(): AsyncGenerator<Buffer> {
    let done = 0;
    for await (const piece of layer.open()) {
      yield piece;
      done += piece.length;
      tell(`sending ${formatBytes(done)} of ${total}`);
    }
    tell("composing");
  }
  const body = Readable.from(counted(), { objectMode: false });
  // on the same machine packing takes longer than what it saves
  if (isLocal(gateway.url))
    return gateway.send("POST", path, body, {
      query,
      headers: { "Content-Length": String(layer.size) },
      timeoutMs: 0,
    });
  const packed = createGzip({ level: 4 });
  body.once("error", (e) => packed.destroy(e));
  return gateway.send("POST", path, body.pipe(packed), { query, timeoutMs: 0 });
}

const isLocal = (url: string): boolean => /^(localhost|127\.[\d.]+|\[::1\])$/.test(new URL(url).hostname);
