/** Images over the API, on a small disk: what is uploaded, listed, removed, collected, and refused. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdir, readFile, readlink, rm, statfs, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { Readable } from "node:stream";
import { after, before, suite, test } from "node:test";
import { gzipSync } from "node:zlib";
import { type ImageSpec, writeDockerArchive, writeOciArchive } from "../../scripts/oci-image.ts";
import { webImage } from "../support/images.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const mib = 2 ** 20;

interface Listed {
  name: string;
  digest: string;
  size: number;
  createdAt: string;
  usedAt: string;
  usedBy: string[];
}

suite("images over the API", () => {
  const up = new AsyncDisposableStack();
  let world: World;

  before(async () => {
    world = up.use(await openWorld({ diskMib: 200 }));
    await world.start(settings);
  });
  after(() => up.disposeAsync());

  const settings = {
    "images.pull_policy": "Never",
    "images.max_upload": "40Mi",
    "images.disk_reserve": "30Mi",
    "images.gc_min_age": "1ms",
  };

  async function upload(body: Buffer | Readable, query = ""): Promise<{ status: number; text: string }> {
    const password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
    const response = await fetch(`${world.url}/system/images${query}`, {
      method: "POST",
      headers: { authorization: `Basic ${Buffer.from(`admin:${password}`).toString("base64")}` },
      body: body as unknown as ReadableStream,
      duplex: "half",
    } as RequestInit);
    return { status: response.status, text: await response.text() };
  }

  async function archive(name: string, text = name, extra: Partial<ImageSpec> = {}): Promise<Buffer> {
    const file = `${world.dir}/${name}.tar`;
    return readFile(await webImage(file, `docker.io/library/${name}:1`, text, extra));
  }

  /** An image of so many bytes that nothing can pack. */
  async function large(name: string, bytes: number): Promise<Buffer> {
    const file = `${world.dir}/${name}.tar`;
    const layers = [[{ path: "/bytes", content: randomBytes(bytes) }]];
    await writeOciArchive(file, { ref: `docker.io/library/${name}:1`, layers, cmd: ["/none"] });
    return readFile(file);
  }

  async function uploaded(body: Buffer, query = ""): Promise<Listed[]> {
    const answer = await upload(body, query);
    assert.equal(answer.status, 201, answer.text);
    return JSON.parse(answer.text);
  }

  const list = async (): Promise<Listed[]> => JSON.parse((await world.api("GET", "/system/images")).text);
  const names = async () => (await list()).map((image) => image.name.replace("docker.io/library/", ""));
  const remove = (name: string) => world.api("DELETE", `/system/images?name=${name}`);
  const prune = async (): Promise<Listed[]> => JSON.parse((await world.api("POST", "/system/images/prune")).text);
  const deploy = (service: string, image: string, method = "POST") =>
    world.api(method, "/system/functions", { service, image });
  const undeploy = (functionName: string) => world.api("DELETE", "/system/functions", { functionName });

  /** Nothing of images is left: in containerd, in our directories, in files without a name. */
  async function assertNothingLeft(): Promise<void> {
    assert.deepEqual(
      (await world.traces()).filter((t) => /^(image|content|snapshot|lease) /.test(t)),
      [],
    );
    assert.deepEqual(await readdir(`${world.paths.data}/uploads`), []);
    assert.deepEqual(await openUploads(), []);
  }

  async function openUploads(): Promise<string[]> {
    const dir = `/proc/${world.napd().pid}/fd`;
    const targets = await Promise.all((await readdir(dir)).map((fd) => readlink(`${dir}/${fd}`).catch(() => "")));
    return targets.filter((target) => target.includes("/uploads/"));
  }

  test("an archive is uploaded, deployed without any registry, kept while it is used, and removed", async () => {
    const body = await archive("web", "hello\n");
    const [image, ...more] = await uploaded(gzipSync(body));
    assert.deepEqual([image!.name, image!.usedBy, more], ["docker.io/library/web:1", [], []]);
    assert.ok(image!.size > 500_000 && image!.size <= body.length, `${image!.size}`);
    assert.ok(Math.abs(Date.parse(image!.createdAt) - Date.now()) < 60_000);

    const deployed = await deploy("web", "web:1");
    assert.equal(deployed.status, 202, deployed.text);
    assert.equal((await world.call("/function/web")).text, "hello\n");
    const [listed, ...others] = await list();
    assert.deepEqual([listed!.name, listed!.digest, listed!.usedBy, others], [image!.name, image!.digest, ["web"], []]);

    const refused = await remove("web:1");
    assert.deepEqual(
      [refused.status, refused.text],
      [409, `image ${image!.name} is used by function web; delete what uses it first\n`],
    );
    assert.deepEqual(await prune(), []);
    assert.equal((await world.call("/function/web")).text, "hello\n");

    assert.equal((await undeploy("web")).status, 202);
    assert.equal((await remove("web:1")).status, 202);
    assert.equal((await remove("web:1")).status, 404);
    await assertNothingLeft();
  });

  test("a docker archive gets the name that is asked for; in the query or in the body, it goes by that name", async () => {
    const file = `${world.dir}/docker.tar`;
    await writeDockerArchive(file, { ref: "docker.io/library/d:1", layers: [[{ path: "/a", content: "a" }]] });
    const [image] = await uploaded(await readFile(file), "?name=registry.example/team/other:2");
    assert.equal(image!.name, "registry.example/team/other:2");
    assert.equal((await world.api("DELETE", "/system/images", { name: image!.name })).status, 202);
    await assertNothingLeft();
  });

  test("a moved name: the old content stays for who runs it, by its digest, and goes with the update", async () => {
    await uploaded(await archive("moves", "one"));
    assert.equal((await deploy("moves", "moves:1")).status, 202);
    await uploaded(await archive("moves", "two"));
    const before = await list();
    assert.deepEqual(
      before.map((i) => [i.name.replace(/sha256:.*/, "…"), i.usedBy]),
      [
        ["docker.io/library/moves:1", []],
        ["docker.io/library/moves@…", ["moves"]],
      ],
    );
    assert.equal((await remove(before[1]!.name)).status, 409);
    assert.equal((await deploy("moves", "moves:1", "PUT")).status, 202);
    assert.equal((await world.call("/function/moves")).text, "two");
    await eventually(list, (images) => images.length === 1 && images[0]!.usedBy[0] === "moves");
    assert.equal((await undeploy("moves")).status, 202);
    assert.deepEqual(
      (await prune()).map((i) => i.name),
      ["docker.io/library/moves:1"],
    );
    await assertNothingLeft();
  });

  test("bad uploads are refused with a sentence, and leave nothing", async () => {
    const good = await large("bad", mib);
    const swap = (from: string, to: string) => Buffer.from(good.toString("latin1").replaceAll(from, to), "latin1");
    const flipped = Buffer.from(good);
    flipped[good.length >> 1]! ^= 1;
    const noTar = `${world.dir}/notar.tar`;
    await writeOciArchive(noTar, {
      ref: "docker.io/library/bad:1",
      layers: [[{ path: "/x", content: randomBytes(9000) }]],
    });
    const table: [what: string, body: Buffer, query: string, status: number, text: RegExp][] = [
      ["nonsense", Buffer.from("no archive at all"), "", 400, /the uploaded archive is not an image archive/],
      ["cut off", good.subarray(0, good.length >> 1), "", 400, /lacks the blob/],
      ["cut off while packed", gzipSync(good).subarray(0, good.length >> 1), "", 400, /unexpected end|too early/],
      [
        "a packed file that is damaged",
        Buffer.concat([gzipSync(good).subarray(0, 5000), randomBytes(5000)]),
        "",
        400,
        /./,
      ],
      ["a damaged layer", flipped, "", 400, /is damaged/],
      ["without index.json", swap("index.json", "index.jsan"), "", 400, /./],
      ["a name that leads out of it", tarOf("../../etc/passwd", "x"), "", 400, /leads out of it/],
      ["an absolute name", tarOf("/etc/passwd", "x"), "", 400, /absolute name/],
      ["a name that is no reference", good, "?name=UPPER", 400, /image reference "UPPER" is not valid/],
      ["a namespace that is not there", good, "?namespace=none", 400, /namespace none is not valid/],
      ["a manifest of absurd size", tarOf("manifest.json", " ".repeat(5 * mib)), "", 400, /larger than/],
      ["nothing", Buffer.alloc(0), "", 400, /no body/],
      ["too large", Buffer.alloc(41 * mib), "", 413, /larger than 40 MiB.*images\.max_upload/],
      ["a bomb", gzipSync(tarOf("big", Buffer.alloc(60 * mib))), "", 413, /larger than 40 MiB/],
    ];
    for (const [what, body, query, status, text] of table) {
      const answer = await upload(body, query);
      assert.equal(answer.status, status, `${what}: ${answer.text}`);
      assert.match(answer.text, text, what);
      await assertNothingLeft();
    }
    const chunks = Array.from({ length: 41 }, () => Buffer.alloc(mib));
    assert.equal((await upload(Readable.from(chunks))).status, 413);
    await assertNothingLeft();
  });

  /** Sends the first half of an upload; ends the connection when it is disposed of. */
  async function halfUpload() {
    const password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
    const options = { port: world.port, method: "POST", path: "/system/images", auth: `admin:${password}` };
    const client = request({ ...options, headers: { "Content-Length": 20 * mib } });
    client.on("error", () => {});
    client.write(Buffer.alloc(10 * mib));
    await eventually(openUploads, (open) => open.length === 1);
    return client;
  }

  test("an upload whose client leaves, or whose napd dies, leaves nothing", async () => {
    (await halfUpload()).destroy();
    await eventually(openUploads, (open) => open.length === 0);
    await assertNothingLeft();
    assert.doesNotMatch(await world.log(), /unexpected error/);

    await halfUpload();
    await world.napd().kill9();
    assert.deepEqual(await readdir(`${world.paths.data}/uploads`), []);
    await world.start(settings);
    await assertNothingLeft();
  });

  const free = async () => {
    const { bavail, bsize } = await statfs(`${world.dir}/c`);
    return bavail * bsize;
  };

  test("what would not fit makes the least recently used go, and never what a function needs", async () => {
    await uploaded(await archive("web", "hello\n"));
    for (const name of ["a", "b", "c"]) await uploaded(await large(name, 24 * mib)); // packed and unpacked: 48 each
    assert.equal((await deploy("web", "web:1")).status, 202);
    // used, though in vain: no program in it; that is younger than what was uploaded after it
    assert.equal((await deploy("a", "a:1")).status, 500);
    assert.equal((await undeploy("a")).status, 202);
    await uploaded(await large("d", 24 * mib)); // 200 - 3 × 48 - 30 in reserve leaves too little
    assert.deepEqual(await names(), ["a:1", "c:1", "d:1", "web:1"]);
    assert.ok((await free()) > 30 * mib);
    assert.equal((await world.call("/function/web")).text, "hello\n");
  });

  test("a deploy is refused when the disk is too full, with nothing changed; and works again when there is room", async () => {
    assert.deepEqual((await prune()).map((i) => i.name.replace("docker.io/library/", "")).sort(), [
      "a:1",
      "c:1",
      "d:1",
    ]);
    await uploaded(await archive("two", "two\n"));
    assert.equal((await deploy("two", "two:1")).status, 202);
    assert.equal((await undeploy("web")).status, 202);
    const ballast = `${world.dir}/c/ballast`;
    await writeFile(ballast, Buffer.alloc((await free()) - 20 * mib));
    const before = await world.api("GET", "/system/functions");
    for (const answer of [
      await deploy("two", "two:1", "PUT"),
      await deploy("three", "two:1"),
      await upload(await archive("web", "hello\n")),
    ]) {
      assert.equal(answer.status, 507, answer.text);
      assert.match(answer.text, /has [\d.]+ MiB free, .* 30 MiB stay free \(setting images\.disk_reserve\).*prune/);
    }
    assert.equal((await world.api("GET", "/system/functions")).text, before.text);
    assert.deepEqual(await names(), ["two:1"], "the unused image had to go before that");
    assert.equal((await world.call("/function/two")).text, "two\n");
    await rm(ballast);
    assert.equal((await deploy("two", "two:1", "PUT")).status, 202);
  });

  test("above the high mark napd collects by itself, and stops at the low one", async () => {
    await uploaded(await large("a", 24 * mib));
    await uploaded(await large("b", 24 * mib));
    await world.napd().stop();
    await world.start({ ...settings, "images.gc_high": "35", "images.gc_low": "30" }); // some 100 of 200 MiB are in use
    await eventually(names, (found) => found.length < 3);
    await world.napd().stop();
    await world.start(settings);
    assert.deepEqual(await names(), ["b:1", "two:1"]);
    assert.equal((await world.call("/function/two")).text, "two\n");
  });

  test("the usage of a function: memory, and CPU while it works", async () => {
    const usage = async () =>
      JSON.parse((await world.api("GET", "/system/function/two?usage=1")).text).usage as Record<string, number>;
    assert.ok((await usage()).totalMemoryBytes! > 10_000);
    const busy = new AbortController();
    const work = (async () => {
      while (!busy.signal.aborted) await world.call("/function/two/cgi-bin/info");
    })();
    await eventually(usage, (u) => u.cpu! > 1);
    busy.abort();
    await work;
    const plain = JSON.parse((await world.api("GET", "/system/function/two?usage=false")).text);
    assert.equal(plain.usage, undefined);
  });
});

/** A tar file with one entry. */
function tarOf(name: string, content: string | Buffer): Buffer {
  const body = Buffer.from(content);
  const header = Buffer.alloc(512);
  header.write(name);
  header.write("0000644\0", 100);
  header.write(body.length.toString(8).padStart(11, "0"), 124);
  header.write(" ".repeat(8), 148);
  header.write("0", 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return Buffer.concat([header, body, Buffer.alloc(((512 - (body.length % 512)) % 512) + 1024)]);
}
