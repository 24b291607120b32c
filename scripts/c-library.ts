/** The C library that goes along with the watchdog into images that have another one, or none. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";

export interface CLibrary {
  /** File name of the loader, as in the program's interpreter entry. */
  readonly loader: string;
  /** Files by the name under which they are looked for; the loader is one of them. */
  readonly files: Readonly<Record<string, string>>;
}

type Architecture = "x64" | "arm64";

const loaders: Record<Architecture, string> = { x64: "ld-linux-x86-64.so.2", arm64: "ld-linux-aarch64.so.1" };
const debian: Record<Architecture, { name: string; triplet: string }> = {
  x64: { name: "amd64", triplet: "x86_64-linux-gnu" },
  arm64: { name: "arm64", triplet: "aarch64-linux-gnu" },
};
/** What Bun is linked with. */
const needed = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"];
/** What glibc itself opens when a thread is cancelled; it aborts the program where it finds none. */
const wanted = "libgcc_s.so.1";

const cache = join(import.meta.dirname, "../node_modules/.cache/napd");

/** For this machine's architecture its own glibc, for another one Debian's, extracted from packages into a cache. */
export function cLibrary(architecture: Architecture, program: string): CLibrary {
  return architecture === process.arch ? ofThisMachine(architecture, program) : ofDebian(architecture);
}

/** ldd knows where they are on any distribution; `program` must be one for this machine. */
function ofThisMachine(architecture: Architecture, program: string): CLibrary {
  const text = execFileSync("ldd", [program], { encoding: "utf8" });
  const files: Record<string, string> = {};
  for (const [, name, path] of text.matchAll(/^\s*(\S+) => (\/\S+) \(/gm)) files[name!] = path!;
  const loader = loaders[architecture];
  files[loader] = /^\s*(\/\S+\/ld-linux\S+) \(/m.exec(text)?.[1] ?? files[loader] ?? "";
  const beside = join(dirname(files["libc.so.6"] ?? ""), wanted);
  if (existsSync(beside)) files[wanted] = beside;
  return checked({ loader, files }, "this machine");
}

function ofDebian(architecture: Architecture): CLibrary {
  const sysroot = debianSysroot(architecture);
  const folder = join(sysroot, "lib", debian[architecture].triplet);
  const loader = loaders[architecture];
  return checked(
    { loader, files: Object.fromEntries([loader, wanted, ...needed].map((name) => [name, join(folder, name)])) },
    `Debian's packages for ${architecture}`,
  );
}

function checked(library: CLibrary, where: string): CLibrary {
  for (const name of [library.loader, ...needed])
    if (!existsSync(library.files[name] ?? "")) throw new Error(`${name} is missing on ${where}`);
  return library;
}

/**
 * A folder with Debian's glibc and libstdc++ (which Node needs) for an architecture, as in a root file system. apt works on lists of its own in the
 * cache, so that the machine does not get a foreign architecture. Needs apt-get and dpkg-deb, for the first time the network.
 */
export function debianSysroot(architecture: Architecture): string {
  const folder = join(cache, `debian-c++-${architecture}`);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, "apt-"));
  try {
    for (const path of ["lists/partial", "cache/archives/partial", "root"])
      mkdirSync(join(work, path), { recursive: true });
    const { name } = debian[architecture];
    const settings = {
      "APT::Architecture": name,
      "APT::Architectures": name,
      "Dir::State::Lists": join(work, "lists"),
      "Dir::Cache": join(work, "cache"),
      "APT::Sandbox::User": "root",
    };
    const options = Object.entries(settings).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
    const apt = (...args: string[]) =>
      execFileSync("apt-get", ["-q", ...options, ...args], { cwd: work, stdio: ["ignore", "pipe", "pipe"] });
    apt("update");
    apt("download", `libc6:${name}`, `libgcc-s1:${name}`, `libstdc++6:${name}`);
    for (const file of readdirSync(work).filter((f) => f.endsWith(".deb")))
      execFileSync("dpkg-deb", ["-x", join(work, file), join(work, "root")]);
    renameSync(join(work, "root"), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return folder;
}
