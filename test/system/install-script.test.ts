/** install.sh: which machines and archives it takes, and what it says to the others. Its release is a small one. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, join, resolve } from "node:path";
import { after, before, beforeEach, suite, test } from "node:test";
import { promisify } from "node:util";
import { pack, writeSums } from "../../scripts/release.ts";
import { type Result, type TestMachine, testMachine } from "../support/machine.ts";
import { type TmpDir, tmpDir } from "../support/tmp.ts";

const run = promisify(execFile);
const script = resolve(import.meta.dirname, "../../install.sh");

const saying = (text: string) => `#!/bin/sh\necho ${text}\n`;
const osRelease = (id: string, version: string) =>
  `ID=${id}\nVERSION_ID="${version}"\nPRETTY_NAME="${id} ${version}"\n`;

suite("install.sh", () => {
  let tmp: TmpDir;
  let release: string;
  let archive: string;
  let machine: TestMachine;
  before(async () => {
    tmp = await tmpDir();
    release = join(tmp.path, "napd-1.0.0-linux-x64");
    for (const dir of ["bin", "runtime", "dist/watchdog-linux-x64"])
      await mkdir(join(release, dir), { recursive: true });
    await copyFile(script, join(release, "install.sh"));
    await writeFile(join(release, "bin/napd"), '#!/bin/sh\necho "handed over: $*"\n', { mode: 0o755 });
    await writeFile(join(release, "runtime/node"), saying("v24"), { mode: 0o755 });
    await writeFile(join(release, "dist/watchdog-linux-x64/fwatchdog"), "");
    writeSums(release);
    await mkdir(join(tmp.path, "archives"));
    archive = join(tmp.path, "archives", `${basename(release)}.tar.gz`);
    pack(tmp.path, basename(release), archive, 0, 1);
    machine = await testMachine(join(tmp.path, "m"), {});
    await mkdir(join(tmp.path, "t"));
  });
  after(() => tmp[Symbol.asyncDispose]());
  beforeEach(async () => {
    for (const [name, text] of Object.entries({ id: "0", uname: "x86_64", getconf: "64" }))
      await machine.stub(name, saying(text));
    await writeFile(join(machine.root, "etc/os-release"), osRelease("debian", "13"));
    await rm(join(tmp.path, "archives/SHA256SUMS"), { force: true });
  });

  const sh = (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Result> =>
    machine.run("/bin/sh", args, { TMPDIR: join(tmp.path, "t"), ...env });
  const install = (...options: string[]) => sh([join(release, "install.sh"), "--root", machine.root, ...options]);
  const sums = (text: string) => writeFile(join(tmp.path, "archives/SHA256SUMS"), text);
  const digest = async () => (await run("sha256sum", [archive])).stdout.slice(0, 64);
  const refuses = ({ code, stdout, stderr }: Result, why: RegExp) => {
    assert.equal(code, 1, stdout + stderr);
    assert.match(stderr, why);
    assert.doesNotMatch(stdout, /handed over/);
  };

  test("passes shellcheck", async () => {
    await run("shellcheck", [script]);
  });

  test("hands over to napd install, with the options that are not its own", async () => {
    const { stdout } = await install("--any-os", "--no-start", "--packages", "a folder", "--wait=5s");
    assert.equal(stdout, `handed over: install --root ${machine.root} --no-start --packages a folder --wait=5s\n`);
  });

  for (const [id, versions] of Object.entries({ debian: ["12", "13"], ubuntu: ["22.04", "24.04", "25.10", "26.04"] }))
    for (const version of versions)
      test(`takes ${id} ${version}`, async () => {
        await writeFile(join(machine.root, "etc/os-release"), osRelease(id, version));
        assert.equal((await install()).code, 0);
      });

  for (const [id, version] of [
    ["debian", "11"],
    ["ubuntu", "20.04"],
    ["fedora", "42"],
    ["raspbian", "12"],
  ] as const)
    test(`refuses ${id} ${version}, unless told to go on`, async () => {
      await writeFile(join(machine.root, "etc/os-release"), osRelease(id, version));
      refuses(await install(), new RegExp(`this is ${id} ${version}; --any-os goes on`));
      assert.equal((await install("--any-os")).code, 0);
    });

  test("refuses a system that does not say what it is", async () => {
    await rm(join(machine.root, "etc/os-release"));
    refuses(await install(), /this is an unknown system/);
  });

  for (const name of ["armv7l", "riscv64", "i686"])
    test(`refuses ${name}`, async () => {
      await machine.stub("uname", saying(name));
      refuses(await install(), new RegExp(`this machine is ${name}`));
    });

  test("refuses a 32-bit system on a 64-bit kernel", async () => {
    await machine.stub("getconf", saying("32"));
    refuses(await install(), /this system is a 32-bit one/);
  });

  test("refuses a release for another kind of machine", async () => {
    await machine.stub("uname", saying("aarch64"));
    refuses(await install(), /for another kind of machine .* linux-arm64/);
  });

  test("refuses a machine without systemd, and says what runs there", async () => {
    await rm(join(machine.root, "run/systemd"), { recursive: true });
    refuses(await install(), /systemd does not run here; .* start bin\/napd as root/);
    await mkdir(join(machine.root, "run/systemd/system"), { recursive: true });
  });

  test("wants root, or sudo", async () => {
    await machine.stub("id", saying("1000"));
    const alone = await sh([join(release, "install.sh")], { PATH: join(machine.root, "stubs") });
    refuses(alone, /needs root: run it as root, or install sudo/);
    await machine.stub("sudo", '#!/bin/sh\necho "sudo $*"\n');
    const { stdout } = await install("--no-start");
    assert.equal(stdout, `sudo sh ${release}/install.sh --root ${machine.root} --no-start\n`);
    await machine.unstub("sudo");
  });

  test("refuses an unpacked release that is not whole", async () => {
    const file = join(release, "bin/napd");
    const text = await readFile(file);
    await writeFile(file, "cut");
    refuses(await install(), /is not whole: unpack the archive again/);
    await writeFile(file, text);
    const alone = join(tmp.path, "install.sh");
    await copyFile(script, alone);
    refuses(await sh([alone, "--root", machine.root]), /is no unpacked release: .* name an archive with --from/);
  });

  test("says what is missing when the runtime does not run", async () => {
    const file = join(release, "runtime/node");
    await writeFile(file, "#!/bin/sh\nexit 127\n");
    writeSums(release);
    refuses(await install(), /do not run here; they need glibc .* apt-get install libstdc\+\+6/);
    await writeFile(file, saying("v24"));
    writeSums(release);
  });

  test("unpacks an archive, and leaves nothing of that", async () => {
    await sums(`${await digest()}  ${basename(archive)}\n`);
    const { stdout, stderr } = await install(`--from=${archive}`);
    assert.equal(stdout, `handed over: install --root ${machine.root}\n`);
    assert.equal(stderr, "");
    assert.deepEqual(await readdir(join(tmp.path, "t")), []);
  });

  test("says when there is nothing to check an archive by", async () => {
    const { stdout, stderr } = await install("--from", archive);
    assert.match(stdout, /handed over/);
    assert.match(stderr, /no SHA256SUMS beside the archive/);
  });

  test("refuses an archive that is not the one of SHA256SUMS", async () => {
    await sums(`${"0".repeat(64)}  ${basename(archive)}\n`);
    refuses(await install("--from", archive), /is not what SHA256SUMS beside it says: fetch both anew/);
    await sums(`${await digest()}  another.tar.gz\n`);
    refuses(await install("--from", archive), /SHA256SUMS beside the archive does not name/);
  });

  test("refuses an archive that is cut off, one of something else, and none", async () => {
    const cut = join(tmp.path, "archives/cut.tar.gz");
    await writeFile(cut, (await readFile(archive)).subarray(0, 500));
    refuses(await install("--from", cut), /cannot be unpacked: .*fetch it again/);
    const other = join(tmp.path, "other.tar.gz");
    pack(tmp.path, "archives", other, 0, 1);
    refuses(await install("--from", other), /is no unpacked release/);
    refuses(await install("--from", join(tmp.path, "none.tar.gz")), /there is no file/);
    refuses(await install("--from"), /--from takes a value/);
    assert.deepEqual(await readdir(join(tmp.path, "t")), []);
  });

  test("fetches an archive from an address, with what to check it by", async () => {
    await sums(`${await digest()}  ${basename(archive)}\n`);
    const server = createServer(async (request, response) => {
      const bytes = await readFile(join(tmp.path, "archives", basename(request.url!))).catch(() => undefined);
      response.writeHead(bytes ? 200 : 404).end(bytes);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      const { stdout, stderr } = await install("--from", `${url}/${basename(archive)}`);
      assert.match(stdout, /handed over/, stderr);
      assert.doesNotMatch(stderr, /no SHA256SUMS/);
      refuses(await install("--from", `${url}/none.tar.gz`), /cannot be fetched: .*404.*; fetch it elsewhere/);
    } finally {
      server.close();
      server.closeAllConnections();
    }
    refuses(await install("--from", `${url}/${basename(archive)}`), /cannot be fetched: .*; fetch it elsewhere/);
  });
});
