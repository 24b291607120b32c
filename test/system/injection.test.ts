/** Any image becomes a function by naming a process: our watchdog comes into its container from outside. */
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { watchdogLayer, writeOciArchive } from "../../scripts/oci-image.ts";
import { type ForeignImage, foreignImages } from "../support/foreign-images.ts";
import { openWorld, type World } from "../support/world.ts";

const users = { root: undefined, "another user": "1234:1234" } as const;

suite("functions from images without a watchdog", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  let images: ForeignImage[];

  before(async () => {
    world = up.use(await openWorld());
    await world.start({ "images.pull_policy": "Never", "functions.ready_timeout": "5s" });
    images = await foreignImages(world.dir);
    for (const image of images)
      for (const [who, user] of Object.entries(users))
        await imported(nameOf(image.name, who), {
          layers: [image.layer],
          ...(user && { user }),
          ...(image.env && { env: image.env }),
        });
  });
  after(() => up.disposeAsync());

  async function imported(name: string, spec: Omit<Parameters<typeof writeOciArchive>[1], "ref">): Promise<void> {
    const file = `${world.dir}/image.tar`;
    await writeOciArchive(file, { ref: `docker.io/library/${name}:1`, ...spec });
    await world.import(file);
  }

  function nameOf(image: string, who: string): string {
    return `${image}-${who === "root" ? "root" : "user"}`;
  }

  /** A deployed function; disposing removes it. */
  async function deployed(image: string, more: object): Promise<AsyncDisposable> {
    const body = { service: "fn", image: `${image}:1`, ...more };
    const answer = await world.api("POST", "/system/functions", body);
    assert.equal(answer.status, 202, answer.text);
    return {
      async [Symbol.asyncDispose]() {
        await world.api("DELETE", "/system/functions", { functionName: "fn" });
      },
    };
  }

  for (const image of ["busybox", "debian", "musl"])
    for (const who of Object.keys(users) as (keyof typeof users)[])
      for (const readOnlyRootFilesystem of [false, true]) {
        const root = readOnlyRootFilesystem ? "read-only" : "writable";
        const name = nameOf(image, who);

        test(`${image}, as ${who}, ${root} root: counts what it is sent`, async () => {
          await using _fn = await deployed(name, { envProcess: "/bin/count", readOnlyRootFilesystem });
          for (const size of [0, 1, 100_000, 5_000_000]) {
            const { status, text } = await world.call("/function/fn", {
              method: "POST",
              body: Buffer.alloc(size, 120),
            });
            assert.deepEqual([status, text.trim()], [200, String(size)]);
          }
        });

        test(`${image}, as ${who}, ${root} root: the function has no more rights than without us`, async () => {
          await using _fn = await deployed(name, { envProcess: "/bin/report", readOnlyRootFilesystem });
          const { status, text } = await world.call("/function/fn");
          assert.equal(status, 200, text);
          const lines = [
            new RegExp(`^uid=${users[who] ? 1234 : 0}$`, "m"),
            /^watchdog is read-only$/m,
            /^NoNewPrivs:\t1$/m,
            /^Seccomp:\t2$/m,
            /^CapEff:\t0+$/m,
            /^CapBnd:\t0+$/m,
          ];
          for (const line of lines) assert.match(text, line);
          assert.equal(/^root is read-only$/m.test(text), readOnlyRootFilesystem || who !== "root");
        });
      }

  for (const image of ["busybox", "debian", "musl"])
    test(`${image}: a call that takes too long is ended, and the next one is served`, async () => {
      await using _fn = await deployed(nameOf(image, "root"), {
        envProcess: "/bin/nap 20",
        envVars: { exec_timeout: "300ms" },
      });
      for (let i = 0; i < 2; i++) {
        const begin = performance.now();
        const { status } = await world.call("/function/fn");
        assert.equal(status, 408);
        assert.ok(performance.now() - begin < 5000);
      }
    });

  for (const image of ["busybox", "debian", "musl"])
    test(`${image}: what a program says is there while it still runs`, async () => {
      await using _fn = await deployed(nameOf(image, "another user"), {
        envProcess: "/bin/drip",
        envVars: { mode: "streaming" },
        annotations: { "napd.timeout": "10s" }, // the program stays for longer
      });
      const { status, body } = await fetch(`${world.url}/function/fn`);
      const reader = body!.getReader();
      const { value } = await reader.read();
      assert.deepEqual([status, new TextDecoder().decode(value)], [200, "first\n"]);
      await reader.cancel();
    });

  test("a program with its own server, behind mode=http", async () => {
    await using _fn = await deployed(nameOf("busybox", "root"), {
      envProcess: "/bin/busybox httpd -f -p 127.0.0.1:3000 -h /bin",
      envVars: { mode: "http", upstream_url: "http://localhost:3000" }, // by name: there is no libc to look it up
      annotations: { "com.openfaas.ready.http.path": "/_/ready" },
    });
    const { status, text } = await world.call("/function/fn/count");
    assert.deepEqual([status, text], [200, "#!/bin/sh\nexec wc -c\n"]);
  });

  test("an image's own program, when its deployment asks for the watchdog without naming a process", async () => {
    await imported("counter", { layers: [images[0]!.layer], entrypoint: ["/bin/wc"], cmd: ["-c"] });
    await using _fn = await deployed("counter", { annotations: { "napd.watchdog": "inject" } });
    assert.equal((await world.call("/function/fn", { method: "POST", body: "12345" })).text.trim(), "5");
  });

  test("files of the image's program are none of the watchdog's settings", async () => {
    const files = {
      ".env": "port=9999\nLEAK=1\n",
      "bunfig.toml": 'preload = ["./evil.js"]\n',
      "evil.js": "process.exit(3)",
      "package.json": "{",
      "tsconfig.json": "{",
    };
    const app = Object.entries(files).map(([name, content]) => ({ path: `/app/${name}`, content }));
    await imported("files", { layers: [images[0]!.layer, app], workingDir: "/app" });
    await using _fn = await deployed("files", { envProcess: "cat /proc/self/environ" });
    const { status, text } = await world.call("/function/fn");
    assert.equal(status, 200);
    assert.match(text, /fprocess=cat/);
    assert.doesNotMatch(text, /LEAK|9999/);
  });

  test("an image with a watchdog runs that one", async () => {
    const layers = [images[0]!.layer, await watchdogLayer()];
    await imported("own", { layers, cmd: ["/bin/sh", "-c", "exec fwatchdog"] });
    await using _fn = await deployed("own", { envProcess: "cat /proc/1/cmdline" });
    assert.equal((await world.call("/function/fn")).text, "fwatchdog\0");
  });

  test("without the watchdog's folder only what needs it fails, and says so", async () => {
    await world.napd().stop(60_000);
    await world.start({ "images.pull_policy": "Never", "paths.watchdog": `${world.dir}/nothing` });
    const body = { service: "fn", image: `${nameOf("busybox", "root")}:1`, envProcess: "wc -c" };
    const { status, text } = await world.api("POST", "/system/functions", body);
    assert.equal(status, 500);
    assert.match(text, /nothing\/fwatchdog\).*npm run build:watchdog.*paths\.watchdog.*napd\.watchdog/);
  });
});
