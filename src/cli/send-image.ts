import { createReadStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { refused } from "./answers.ts";
import type { Builder } from "./builder.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import type { Gateway } from "./gateway.ts";
import { canonical } from "./image-name.ts";
import { runProgram } from "./program.ts";

/**
 * Takes an image out of the builder's store to a napd, without a registry: POST /system/images. It goes through a
 * file, which is deleted again, because builders write archives out of order.
 */
export async function sendImage(
  context: Context,
  builder: Builder,
  image: string,
  gateway: Gateway,
  namespace?: string,
): Promise<void> {
  const name = canonical(image);
  const dir = await mkdtemp(join(context.env.TMPDIR ?? tmpdir(), "nap-"));
  try {
    const file = join(dir, "image.tar");
    const { code, tail } = await runProgram(context, builder.program, saveArguments(builder, image, file, gateway));
    context.signal.throwIfAborted();
    if (code !== 0)
      throw new Failure(`${builder.kind} cannot save ${image}: ${tail.at(-1) ?? `code ${code}`}; is it built?`);
    const reply = await gateway.send("POST", "/system/images", createReadStream(file), {
      query: { namespace: namespace || undefined, name },
      timeoutMs: 0,
    });
    if (reply.status === 404 && !namespace)
      throw new Failure(`${gateway.url} takes no images: it is no napd; push ${image} to a registry instead`);
    if (reply.status !== 201) throw refused(gateway.url, reply);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function saveArguments({ kind }: Builder, image: string, file: string, { url }: Gateway): string[] {
  const name = canonical(image);
  if (kind === "buildah") {
    // docker's archives are not compressed, which on the same machine takes longer than to copy
    const near = ["127.0.0.1", "localhost", "[::1]"].includes(new URL(url).hostname);
    return ["push", "--quiet", name, `${near ? "docker-archive" : "oci-archive"}:${file}:${name}`];
  }
  if (kind === "podman") return ["save", "--quiet", "--format", "oci-archive", "--output", file, name];
  return ["save", "--output", file, kind === "docker" ? image : name];
}
