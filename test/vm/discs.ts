import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { writeSums } from "../../scripts/release.ts";
import { webImage } from "../support/images.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");

/** An ISO file of `files`, by their paths on it; the machine finds it by `label`. */
async function writeDisc(file: string, label: string, files: Readonly<Record<string, string>>): Promise<string> {
  const grafts = Object.entries(files).map(([path, source]) => `${path}=${source}`);
  await run("xorriso", ["-as", "mkisofs", "-quiet", "-V", label, "-J", "-R", "-o", file, "-graft-points", ...grafts]);
  return file;
}

/** The archive of this checkout's release, for x64. */
export async function makeRelease(dir: string): Promise<string> {
  const args = [join(root, "scripts/release.ts"), "--arch", "x64", "--only-built", "--out", dir];
  const { stdout } = await run(process.execPath, args);
  return stdout.trim();
}

/** The same programs under another version, unpacked into a folder of `dir`. */
export async function makeNextRelease(archive: string, dir: string, version: string): Promise<string> {
  const folder = join(dir, `napd-${version}-linux-x64`);
  await mkdir(folder);
  await run("tar", ["-xzf", archive, "-C", folder, "--strip-components=1"]);
  const change = async (name: string, more: object) => {
    const file = join(folder, name);
    await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, "utf8")), ...more }));
  };
  await change("package.json", { version });
  await change("revision.json", { message: `version ${version}` });
  writeSums(folder);
  return folder;
}

export const images = { hello: "docker.io/library/hello:1", hog: "docker.io/library/hog:1" };
export const greeting = "Hello from the machine";

/** Never asked of a registry: the machine may have a network, or none. */
const stack = `version: 1.0
provider: {name: openfaas}
functions:
  hello:
    image: ${images.hello}
    labels: {com.openfaas.scale.zero-duration: 20s}
    annotations: {napd.pull-policy: Never}
    limits: {memory: 64Mi, cpu: 500m}
  count: # by the watchdog that napd brings
    image: ${images.hello}
    fprocess: wc -c
    annotations: {napd.pull-policy: Never}
`;

/** The folder for machines without a network, on a disc with label `napd`: see docs/operations.md, cloud-init. */
export async function writePayload(
  dir: string,
  { archive, next, debs }: { archive: string; next: string; debs: string | undefined },
): Promise<string> {
  const [hello, hog, functions] = ["hello.tar", "hog.tar", "functions.yaml"].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ];
  await webImage(hello, images.hello, greeting);
  // answers for a moment, then takes all the memory there is
  await webImage(hog, images.hog, "", { cmd: ["sh", "-c", "busybox httpd -p 8080 -h /www; exec tail /dev/zero"] });
  await writeFile(functions, stack);
  const sums = join(archive, "../SHA256SUMS");
  const named = [archive, sums, hello, hog, functions].map((file) => [`/${basename(file)}`, file]);
  const folders = { ...(debs && { "/": debs }), [`/${basename(next)}`]: next };
  return writeDisc(join(dir, "napd.iso"), "napd", { ...Object.fromEntries(named), ...folders });
}

/** Variables of cloud-init/user-data.yaml set as a user sets them: the text after `NAME=`. */
export function fillIn(userData: string, variables: Readonly<Record<string, string>>): string {
  return Object.entries(variables).reduce((text, [name, value]) => {
    const line = new RegExp(`^( *${name}=).*$`, "m");
    if (!line.test(text)) throw new Error(`cloud-init/user-data.yaml has no variable ${name}`);
    return text.replace(line, (_, before) => before + value);
  }, userData);
}

/** What a NoCloud disc holds. */
export async function writeSeed(dir: string, userData: string): Promise<string> {
  const [user, meta] = [join(dir, "user-data"), join(dir, "meta-data")];
  await writeFile(user, userData);
  await writeFile(meta, "instance-id: napd-test\nlocal-hostname: vm\n");
  return writeDisc(join(dir, "seed.iso"), "CIDATA", { "/user-data": user, "/meta-data": meta });
}
