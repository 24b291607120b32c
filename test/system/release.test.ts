/** A release as somebody has it who unpacked it: programs, files, and a function that answers. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, stat, utimes, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { debianSysroot } from "../../scripts/c-library.ts";
import { fill, pack, writeSums } from "../../scripts/release.ts";
import { webImage } from "../support/images.ts";
import { type TmpDir, tmpDir } from "../support/tmp.ts";
import { openWorld } from "../support/world.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");

const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
const nameOf = (architecture: string) => `napd-${version}-linux-${architecture}`;

suite("a release", () => {
  let tmp: TmpDir;
  let out: string;
  before(async () => {
    tmp = await tmpDir();
    out = join(tmp.path, "out");
    await run(process.execPath, [join(root, "scripts/release.ts"), "--only-built", "--out", out]);
    for (const architecture of ["x64", "arm64"])
      await run("tar", ["-xzf", join(out, `${nameOf(architecture)}.tar.gz`), "-C", tmp.path]);
  });
  after(() => tmp[Symbol.asyncDispose]());
  const unpacked = (architecture = "x64") => join(tmp.path, nameOf(architecture));
  /** Runs it from elsewhere, and through a link as in /usr/local/bin. */
  const napd = (...args: string[]) => run(join(unpacked(), "bin/napd"), args, { cwd: "/" });
  const nap = (...args: string[]) => run(join(unpacked(), "bin/nap"), args, { cwd: tmp.path });

  test("SHA256SUMS names both archives, and nothing else is left", async () => {
    await run("sha256sum", ["--check", "--strict", "SHA256SUMS"], { cwd: out });
    const archives = ["arm64", "x64"].map((architecture) => `${nameOf(architecture)}.tar.gz`);
    assert.deepEqual((await readdir(out)).sort(), ["SHA256SUMS", ...archives].sort());
  });

  test("holds what an installation is made of, writable by root alone", async () => {
    const wanted = ["LICENSE", "README.md", "CHANGELOG.md", "bin", "cni", "dist", "docs", "lib", "package.json"];
    const more = ["proto", "revision.json", "runtime", "seccomp.json", "systemd", "SHA256SUMS"];
    const installing = ["install.sh", "cloud-init", "templates"];
    assert.deepEqual((await readdir(unpacked())).sort(), [...wanted, ...more, ...installing].sort());
    const programs = Object.fromEntries(["bin/napd", "bin/nap", "runtime/node"].map((name) => [name, 0o755]));
    const modes: Record<string, number> = { ...programs, "cni/napd.conflist": 0o644 };
    for (const [name, mode] of Object.entries(modes))
      assert.equal((await stat(join(unpacked(), name))).mode & 0o777, mode, name);
    assert.match(
      await readFile(join(unpacked(), "systemd/napd.service"), "utf8"),
      /^ExecStart=\/opt\/napd\/current\/bin\/napd$/m,
    );
    const { sha } = JSON.parse(await readFile(join(unpacked(), "revision.json"), "utf8"));
    assert.match(sha, /^[0-9a-f]{40}$/);
  });

  test("its list of files is complete and right, and another one of the same sources is the same", async () => {
    await run("sha256sum", ["--check", "--strict", "--quiet", "SHA256SUMS"], { cwd: unpacked() });
    const again = join(tmp.path, "again");
    await mkdir(again);
    await fill(again, "x64", true);
    writeSums(again);
    const sums = (folder: string) => readFile(join(folder, "SHA256SUMS"), "utf8");
    assert.equal(await sums(again), await sums(unpacked()));
    const files = (await sums(again)).trimEnd().split("\n").length;
    const entries = await readdir(unpacked(), { recursive: true, withFileTypes: true });
    assert.equal(entries.filter((entry) => entry.isFile()).length, files + 1);
  });

  test("does not tell where it was made", async () => {
    for (const name of await readdir(join(unpacked(), "lib")))
      assert.ok(!(await readFile(join(unpacked(), "lib", name), "utf8")).includes(root), name);
  });

  test("says its version and its settings", async () => {
    assert.equal((await napd("--version")).stdout, `${version}\n`);
    assert.match((await napd("--print-config")).stdout, /^\[gateway\]$/m);
    assert.deepEqual((await napd("--version")).stderr, "");
  });

  test("nap says what it can do, and brings its templates", async () => {
    assert.equal((await nap("--version")).stdout, `${version}\n`);
    assert.match((await nap("--help")).stdout, /^ +deploy /m);
    await nap("new", "greet", "--lang", "node");
    assert.ok((await readdir(tmp.path)).includes("greet"));
  });

  test("the one for arm64 does so too", async () => {
    const node = join(unpacked("arm64"), "runtime/node");
    const emulated = async (program: string, ...args: string[]) => {
      const lib = join(unpacked("arm64"), `lib/${program}.mjs`);
      return (await run("qemu-aarch64-static", ["-L", debianSysroot("arm64"), node, lib, ...args])).stdout;
    };
    const [release, settings, help] = await Promise.all([
      emulated("napd", "--version"),
      emulated("napd", "--print-config"),
      emulated("nap", "--help"),
    ]);
    assert.equal(release, `${version}\n`);
    assert.match(settings, /^\[gateway\]$/m);
    assert.match(help, /^ +deploy /m);
  });

  test("runs a function, in an image without a watchdog, and its doctor finds the machine fit", async () => {
    const link = join(tmp.path, "napd");
    await run("ln", ["-s", join(unpacked(), "bin/napd"), link]);
    await using world = await openWorld({ program: link });
    await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "from a release\n"));
    await world.start({ "images.pull_policy": "Never" });
    const { ok, checks } = JSON.parse((await world.command(["doctor", "--json"])).stdout);
    assert.ok(ok, JSON.stringify(checks));
    assert.equal((await world.api("POST", "/system/functions", { service: "web", image: "web:1" })).status, 202);
    assert.equal((await world.call("/function/web")).text, "from a release\n");
    const info = JSON.parse((await world.api("GET", "/system/info")).text);
    assert.equal(info.version.release, version);
  });

  test("packs to the same bytes whatever times, owners and umask the files have", async () => {
    const digests: string[] = [];
    for (const [i, mode] of [0o600, 0o664].entries()) {
      const parent = join(tmp.path, `pack${i}`);
      await mkdir(join(parent, "a/b"), { recursive: true, mode: i === 0 ? 0o700 : 0o775 });
      for (const name of i === 0 ? ["b/one", "two"] : ["two", "b/one"]) {
        await writeFile(join(parent, "a", name), name, { mode });
        await utimes(join(parent, "a", name), 1000 * i, 2000 * i);
      }
      pack(parent, "a", join(parent, "a.tar.gz"), 1_700_000_000);
      digests.push(
        createHash("sha256")
          .update(await readFile(join(parent, "a.tar.gz")))
          .digest("hex"),
      );
    }
    assert.equal(digests[0], digests[1]);
  });
});
