import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installationRoot } from "../installation.ts";
import type { Builder } from "./builder.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { runProgram } from "./program.ts";

/** In a Dockerfile that takes the watchdog from an image whose name it is given. */
export const watchdogArgument = /^\s*ARG\s+WATCHDOG_IMAGE\b/im;

/** The watchdog for any image, as it comes with nap. */
const folder = join(installationRoot, "dist", `watchdog-linux-${process.arch}`);

/**
 * The image that Dockerfiles take the watchdog from, when nobody named one: that of `NAP_WATCHDOG_IMAGE`; else one
 * that is made of the files that come with nap, in the builder's own store, so that no registry needs to have it.
 * Undefined where nap came without them: the Dockerfile's default holds.
 */
export async function ownWatchdogImage(
  context: Context,
  builder: Builder,
  onBuild: () => void,
): Promise<string | undefined> {
  const { NAP_WATCHDOG_IMAGE: given } = context.env;
  if (given) return given;
  const files = await readdir(folder).catch(() => []);
  if (files.length === 0) return undefined;
  const image = `localhost/napd-watchdog:${await fingerprint(files.sort())}`;
  const { program, kind } = builder;
  const inspect = kind === "buildah" ? ["inspect", "--type", "image", image] : ["image", "inspect", image];
  if ((await runProgram(context, program, inspect)).code === 0) return image;
  onBuild();
  const dir = await mkdtemp(join(context.env.TMPDIR ?? tmpdir(), "nap-"));
  try {
    const file = join(dir, "Dockerfile");
    await writeFile(file, "FROM scratch\nCOPY . /opt/napd/watchdog/\n");
    const { code, tail } = await runProgram(context, program, ["build", "--tag", image, "--file", file, folder]);
    context.signal.throwIfAborted();
    if (code !== 0) throw new Failure(`${kind} cannot make an image of the watchdog: ${tail.at(-1) ?? `code ${code}`}`);
    return image;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Another one for other files. */
async function fingerprint(files: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const file of files) {
    const { size, mtimeMs } = await stat(join(folder, file));
    hash.update(`${file} ${size} ${mtimeMs}\n`);
  }
  return hash.digest("hex").slice(0, 12);
}
