/** The ground the other system tests stand on: a containerd, images and a registry that come and go without trace. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { baseLayer, type ImageSpec, writeDockerArchive, writeOciArchive } from "../../scripts/oci-image.ts";
import { mountsUnder, openContainerd } from "../../scripts/private-containerd.ts";
import { processesNaming } from "../support/processes.ts";
import { openRegistry } from "../support/registry.ts";
import { tmpDir } from "../support/tmp.ts";

const run = promisify(execFile);

const image: ImageSpec = {
  ref: "docker.io/library/support:latest",
  layers: [[{ path: "/etc/motd", content: "hello from a file\n" }]],
  cmd: ["cat", "/etc/motd"],
  user: "app",
};

async function withBase(): Promise<ImageSpec> {
  return { ...image, layers: [await baseLayer(), ...image.layers] };
}

suite("private containerd", () => {
  test("answers, keeps its images over a stop and a kill, and leaves nothing", async () => {
    await using tmp = await tmpDir();
    const runDir = `${tmp.path}/run`;
    {
      await using containerd = await openContainerd({ dir: `${tmp.path}/data`, runDir });
      const ctr = async (...args: string[]) => (await run("ctr", ["--address", containerd.socket, ...args])).stdout;
      assert.match(await ctr("version"), /Server:/);
      await writeOciArchive(`${tmp.path}/image.tar`, image);
      await ctr("images", "import", `${tmp.path}/image.tar`);

      const before = containerd.pid;
      await containerd.stop();
      assert.equal(containerd.pid, undefined);
      await containerd.start();
      assert.notEqual(containerd.pid, before);
      await containerd.kill9();
      await containerd.start();
      assert.equal((await ctr("images", "list", "--quiet")).trim(), image.ref);
    }
    assert.deepEqual(readdirSync(runDir), []);
    assert.deepEqual(processesNaming(tmp.path), []);
  });

  test("one left behind with the same directory is stopped before the next starts", async () => {
    await using tmp = await tmpDir();
    const places = { dir: `${tmp.path}/data`, runDir: `${tmp.path}/run` };
    await using first = await openContainerd(places);
    const before = first.pid!;
    await using second = await openContainerd(places);
    assert.notEqual(second.pid, before);
    assert.equal(existsSync(`/proc/${before}`), false);
  });

  test("a broken start says what the log says", async () => {
    await using tmp = await tmpDir();
    await mkdir(`${tmp.path}/data`);
    await writeFile(`${tmp.path}/data/containerd`, "a file where the root directory should be");
    const opening = openContainerd({ dir: `${tmp.path}/data`, runDir: `${tmp.path}/run` });
    await assert.rejects(opening, /containerd ended before it was ready \(exit code 1\).*not a directory/s);
  });

  test("containers that outlive it are killed with their mounts and cgroups, frozen ones too", async () => {
    await using tmp = await tmpDir();
    const runDir = `${tmp.path}/run`;
    const ids = ["running", "paused", "orphan"].map((name) => `${name}-${process.pid}`);
    {
      await using containerd = await openContainerd({ dir: `${tmp.path}/data`, runDir });
      const ctr = async (...args: string[]) =>
        (await run("ctr", ["--address", containerd.socket, "--namespace", "support-test", ...args])).stdout;
      await writeOciArchive(`${tmp.path}/image.tar`, await withBase());
      await ctr("images", "import", `${tmp.path}/image.tar`);
      for (const id of ids)
        await ctr("run", "--detach", "--null-io", "--runc-root", `${runDir}/runc`, image.ref, id, "sleep", "1000");
      await ctr("tasks", "pause", ids[1]!);
      await containerd.stop();
      assert.equal(processesNaming(`-address ${containerd.socket}`).length, 3, "shims outlive containerd");
      process.kill(processesNaming(`-id ${ids[2]} -address ${containerd.socket}`)[0]!.pid, "SIGKILL");

      await containerd.killLeftShims();
      assert.deepEqual(processesNaming(containerd.socket), []);
      assert.deepEqual(mountsUnder(runDir), []);
    }
    const { stdout } = await run("find", ["/sys/fs/cgroup", "-type", "d", "-name", `*-${process.pid}`]);
    assert.equal(stdout, "", "cgroups are removed");
  });
});

suite("archives", () => {
  for (const { format, write } of [
    { format: "OCI", write: writeOciArchive },
    { format: "docker", write: writeDockerArchive },
  ])
    test(`an image in an ${format} archive runs under ctr as its user`, async () => {
      await using tmp = await tmpDir();
      await using containerd = await openContainerd({ dir: `${tmp.path}/data`, runDir: `${tmp.path}/run` });
      const ctr = async (...args: string[]) => (await run("ctr", ["--address", containerd.socket, ...args])).stdout;
      await write(`${tmp.path}/image.tar`, await withBase());
      await ctr("images", "import", `${tmp.path}/image.tar`);
      const id = `archive-${process.pid}`;
      const runOnce = ["run", "--rm", "--runc-root", `${tmp.path}/run/runc`, image.ref, id];
      assert.equal(await ctr(...runOnce), "hello from a file\n", "the image's own command");
      const said = await ctr(...runOnce, "sh", "-c", "busybox echo hi; id; stat -c %a /tmp; ls -ld /home/app");
      assert.match(said, /^hi\nuid=1000\(app\) gid=1000\(app\).*\n1777\n.* app +app .*\n$/);
    });

  test("the same input gives the same bytes, whichever compression", async () => {
    await using tmp = await tmpDir();
    for (const compression of ["none", "gzip", "zstd"] as const) {
      const hashes = new Set<string>();
      for (const name of ["a", "b"]) {
        await writeOciArchive(`${tmp.path}/${name}`, { ...image, compression });
        hashes.add(
          createHash("sha256")
            .update(await readFile(`${tmp.path}/${name}`))
            .digest("hex"),
        );
      }
      assert.equal(hashes.size, 1, compression);
    }
    assert.deepEqual(readdirSync(tmp.path).sort(), ["a", "b"], "no temporary file is left");
  });

  test("tar reads every kind of entry back as it was given", async () => {
    await using tmp = await tmpDir();
    const long = `/${"directory/".repeat(12)}file`;
    await writeFile(`${tmp.path}/on-disk`, "x".repeat(1000));
    const entries = [
      { path: "/d", dir: true as const, mode: 0o1777 },
      { path: "/d/file", file: `${tmp.path}/on-disk`, mode: 0o4755, uid: 1000, gid: 100 },
      { path: "/d/link", symlink: "file" },
      { path: long, content: "far away" },
    ];
    const written = await writeOciArchive(`${tmp.path}/image.tar`, { ...image, layers: [entries] });
    const blob = `blobs/sha256/${written.layers[0]!.slice(7)}`;
    await run("tar", ["-xf", `${tmp.path}/image.tar`, "-C", tmp.path, blob]);
    const { stdout } = await run("tar", ["--numeric-owner", "--utc", "-tvf", `${tmp.path}/${blob}`]);
    assert.deepEqual(
      stdout
        .trim()
        .split("\n")
        .map((line) => line.replace(/ +/g, " ")),
      [
        "drwxrwxrwt 0/0 0 1970-01-01 00:00 d/",
        "-rwsr-xr-x 1000/100 1000 1970-01-01 00:00 d/file",
        "lrwxrwxrwx 0/0 0 1970-01-01 00:00 d/link -> file",
        `-rw-r--r-- 0/0 8 1970-01-01 00:00 ${long.slice(1)}`,
      ],
    );
  });
});

suite("registry", () => {
  const auth = { user: "someone", password: "a secret of tests" };
  for (const { kind, options } of [
    { kind: "open", options: {} },
    { kind: "password", options: { auth } },
    { kind: "token", options: { auth, token: true } },
    { kind: "anonymous token", options: { token: true } },
  ])
    test(`what is pushed can be inspected and removed: ${kind}`, async () => {
      await using tmp = await tmpDir();
      await using registry = await openRegistry({ dir: `${tmp.path}/registry`, ...options });
      const { manifest } = await writeOciArchive(`${tmp.path}/image.tar`, { ...image, compression: "gzip" });
      const ref = await registry.push(`${tmp.path}/image.tar`, "some/image:v1");
      assert.equal(ref, `${registry.host}/some/image:v1`);
      const inspect = ["inspect", "--tls-verify=false", "--no-tags", "--format", "{{.Digest}}", `docker://${ref}`];
      const creds = "auth" in options ? ["--creds", `${auth.user}:${auth.password}`] : [];
      assert.equal((await run("skopeo", [...inspect, ...creds])).stdout.trim(), manifest);
      assert.equal(registry.scopes.includes("repository:some/image:pull"), "token" in options);
      if ("auth" in options)
        await assert.rejects(
          run("skopeo", [...inspect, "--creds", "someone:wrong"]),
          /unauthorized|401|authentication/,
        );
      await registry.remove("some/image:v1");
      await assert.rejects(run("skopeo", [...inspect, ...creds]), /manifest unknown|not found/i);
    });
});
