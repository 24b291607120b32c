import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { fill, writeSums } from "../../scripts/release.ts";

/** An unpacked release of the sources, for this machine; without the watchdogs that images bring themselves. */
export async function unpackedRelease(folder: string): Promise<string> {
  const architecture = process.arch === "arm64" ? "arm64" : "x64";
  await mkdir(folder, { recursive: true });
  await fill(folder, architecture, true);
  for (const libc of ["", "-musl"])
    await rm(join(folder, `dist/fwatchdog-linux-${architecture}${libc}`), { force: true });
  writeSums(folder);
  return folder;
}

/** The same of another version, and with other content of some files. */
export async function variantOf(
  release: string,
  folder: string,
  version: string,
  files: Readonly<Record<string, (before: string) => string>> = {},
): Promise<string> {
  await promisify(execFile)("cp", ["-al", release, folder]);
  const named = (text: string) => text.replace(/"version": "[^"]*"/, `"version": "${version}"`);
  const description = files["package.json"] ?? ((text: string) => text);
  const changes = { ...files, "package.json": (text: string) => named(description(text)) };
  let sums = await readFile(join(folder, "SHA256SUMS"), "utf8");
  for (const [name, change] of Object.entries(changes)) {
    const text = change(await readFile(join(folder, name), "utf8"));
    await rm(join(folder, name)); // the file is that of the first one too
    await writeFile(join(folder, name), text);
    const sum = createHash("sha256").update(text).digest("hex");
    sums = sums.replace(new RegExp(`^[0-9a-f]{64}(?=  ${name}$)`, "m"), sum);
  }
  await rm(join(folder, "SHA256SUMS"));
  await writeFile(join(folder, "SHA256SUMS"), sums);
  return folder;
}
