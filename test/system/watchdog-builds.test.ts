/** What `npm run build:watchdog -- --all` leaves in dist/, and the image that Dockerfiles take the watchdog from. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { open, readdir, stat } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { writeWatchdogImage } from "../../scripts/watchdog-image.ts";
import { type TmpDir, tmpDir } from "../support/tmp.ts";
import { openWorld } from "../support/world.ts";

const run = promisify(execFile);
const root = `${import.meta.dirname}/../..`;
const build = (...args: string[]) => run(process.execPath, [`${root}/scripts/build-watchdog.ts`, ...args]);

/** ELF header: `e_machine` by the names of our files. */
const machines: Record<string, number> = { x64: 62, arm64: 183 };

suite("builds of the watchdog", () => {
  const up = new AsyncDisposableStack();
  let dir: TmpDir;
  let archive: string;

  before(async () => {
    dir = up.use(await tmpDir());
    archive = `${dir.path}/image.tar`;
    await writeWatchdogImage(archive, "none");
  });
  after(() => up.disposeAsync());

  for (const architecture of ["x64", "arm64"])
    for (const file of ["fwatchdog-linux-ARCH", "fwatchdog-linux-ARCH-musl", "watchdog-linux-ARCH/fwatchdog"]) {
      const name = file.replace("ARCH", architecture);
      test(`${name} is a program for its machine`, async () => {
        assert.equal(await machineOf(`${root}/dist/${name}`), machines[architecture]);
      });
    }

  for (const architecture of ["x64", "arm64"])
    test(`watchdog-linux-${architecture} looks for all it needs at its own place, and any user can read it`, async () => {
      const folder = `${root}/dist/watchdog-linux-${architecture}`;
      const { stdout } = await run("readelf", ["--wide", "--program-headers", "--dynamic", `${folder}/fwatchdog`]);
      const loader = /interpreter: \/opt\/napd\/watchdog\/(\S+)\]/.exec(stdout)?.[1];
      assert.match(stdout, /\(RPATH\).*\[\/opt\/napd\/watchdog\]/);
      const needed = [...stdout.matchAll(/\(NEEDED\).*\[(\S+)\]/g)].map(([, name]) => name!);
      assert.ok(loader && needed.includes("libc.so.6"));
      for (const name of [".", loader, ...needed])
        assert.equal((await stat(`${folder}/${name}`)).mode & 0o777, 0o755, name);
    });

  test("nothing is built twice, and a forced build gives the same bytes", async () => {
    assert.match((await build("--all")).stdout, /^(dist\/\S+: [\d.]+ MB, unchanged\n){6}$/);
    const file = `${root}/dist/fwatchdog-linux-${process.arch}`;
    const before = await digest(file);
    assert.match((await build("--force")).stdout, /built in/);
    assert.equal(await digest(file), before);
  });

  test("a build leaves no half-made files behind", async () => {
    const left = (await readdir(`${root}/dist`)).filter((name) => /\.\d+/.test(name));
    assert.deepEqual(left, []);
  });

  for (const architecture of ["amd64", "arm64"])
    test(`the image has it for ${architecture}, for COPY --from`, async () => {
      const image = ["--override-arch", architecture, "inspect", `oci-archive:${archive}`];
      const { Architecture, Os } = JSON.parse((await run("skopeo", image)).stdout);
      assert.deepEqual([Architecture, Os], [architecture, "linux"]);
    });

  test("napd imports the image", async () => {
    await using world = await openWorld();
    await world.start();
    await world.import(archive);
    assert.match(await world.ctr("images", "list", "--quiet"), /^docker\.io\/library\/fwatchdog:\d/m);
  });
});

async function machineOf(file: string): Promise<number> {
  await using handle = await open(file);
  const { buffer } = await handle.read(Buffer.alloc(20), 0, 20, 0);
  assert.equal(buffer.toString("latin1", 1, 4), "ELF");
  return buffer.readUInt16LE(18);
}

async function digest(file: string): Promise<string> {
  return (await run("sha256sum", [file])).stdout.split(" ")[0]!;
}
