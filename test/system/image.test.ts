import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, readdir, readFile, statfs, writeFile } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { createGzip } from "node:zlib";
import { pino } from "pino";
import {
  baseLayer,
  type ImageSpec,
  type LayerEntry,
  writeDockerArchive,
  writeOciArchive,
} from "../../scripts/oci-image.ts";
import { openContainerd as openPrivateContainerd } from "../../scripts/private-containerd.ts";
import { type ErrorCode, isAppError } from "../../src/base/errors.ts";
import { type Containerd, openContainerd } from "../../src/host/containerd/client.ts";
import { Images, type ImagesOptions } from "../../src/host/image/images.ts";
import { lookupUser } from "../../src/host/oci/user.ts";
import { openRegistryProxy } from "../fakes/registry-proxy.ts";
import { openRegistry, type Registry } from "../support/registry.ts";
import { tmpDir } from "../support/tmp.ts";
import { eventually } from "../support/world.ts";

const run = promisify(execFile);
const login = { user: "user", password: "correct horse" };

/** One containerd and one registry for all tests; each test has a namespace of its own. */
interface Bench extends AsyncDisposable {
  readonly dir: string;
  readonly socket: string;
  readonly containerd: Containerd;
  readonly registry: Registry;
  open(options?: Partial<ImagesOptions>): Promise<Images>;
  /** Writes an image and pushes it; answers with its reference. */
  push(repoTag: string, spec?: Partial<ImageSpec>): Promise<string>;
}

async function openBench(): Promise<Bench> {
  await using up = new AsyncDisposableStack();
  const dir = up.use(await tmpDir()).path;
  const server = up.use(await openPrivateContainerd({ dir: `${dir}/c`, runDir: `${dir}/r` }));
  const containerd = up.use(await openContainerd({ socket: server.socket }));
  const registry = up.use(await openRegistry({ dir: `${dir}/registry` }));
  const running = up.move();
  return {
    dir,
    socket: server.socket,
    containerd,
    registry,
    open: (options) => openImages(containerd, dir, options),
    push: (repoTag, spec) => push(dir, registry, repoTag, spec),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

function openImages(containerd: Containerd, dir: string, options: Partial<ImagesOptions> = {}): Promise<Images> {
  return Images.open({ containerd, runDir: `${dir}/views`, lookupUser, log: pino({ level: "silent" }), ...options });
}

async function writeImage(file: string, spec: Partial<ImageSpec> = {}): Promise<void> {
  const layers = spec.layers ?? [await baseLayer(), [{ path: "/random", content: randomBytes(300_000) }]];
  await writeOciArchive(file, { ref: "docker.io/library/x:1", compression: "gzip", ...spec, layers });
}

async function push(dir: string, registry: Registry, repoTag: string, spec?: Partial<ImageSpec>): Promise<string> {
  const file = `${dir}/${repoTag.replace(/\W/g, "-")}-${registry.host.replace(":", "-")}.tar`;
  await writeImage(file, spec);
  return registry.push(file, repoTag);
}

async function writeLogins(file: string, host: string, password: string): Promise<void> {
  const auth = Buffer.from(`${login.user}:${password}`).toString("base64");
  await writeFile(file, JSON.stringify({ auths: { [host]: { auth } } }));
}

/** Everything that containerd holds for a namespace. */
async function stateOf(containerd: Containerd, namespace: string) {
  const call = { namespace };
  return {
    images: (await containerd.images.list(call)).map((i) => i.name),
    content: (await containerd.content.list(call)).map((b) => b.digest),
    snapshots: (await containerd.snapshots.list(call)).map((s) => s.name),
    ingests: (await containerd.content.listIngests(call)).map((i) => i.ref),
    leases: await containerd.leases.listOurs(namespace),
  };
}

async function assertNothingLeft(containerd: Containerd, namespace: string): Promise<void> {
  const nothing = { images: [], content: [], snapshots: [], ingests: [], leases: [] };
  assert.deepEqual(await stateOf(containerd, namespace), nothing);
}

/** What `ctr images check` says of each image. */
async function checked(socket: string, namespace: string): Promise<string[]> {
  const { stdout } = await run("ctr", ["-a", socket, "-n", namespace, "images", "check"]);
  return stdout
    .trim()
    .split("\n")
    .slice(1)
    .map((line) => line.replace(/\s+/g, " "));
}

function failsWith(code: ErrorCode, why: RegExp = /./) {
  return (e: unknown) => isAppError(e, code) && why.test(e.message);
}

suite("images on a real containerd", { skip: process.getuid?.() !== 0 && "needs root" }, () => {
  let bench: Bench;
  let counter = 0;
  const newNamespace = () => `image-test-${++counter}`;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench[Symbol.asyncDispose]());

  for (const compression of ["none", "gzip", "zstd"] as const)
    test(`an OCI image with layers packed by ${compression} is pulled, unpacked and pinned`, async () => {
      await using images = await bench.open();
      const ns = newNamespace();
      const spec = {
        compression,
        user: "app",
        entrypoint: ["/bin/sh"],
        cmd: ["-c", "true"],
        env: ["A=b=c"],
        workingDir: "/w",
      };
      const ref = await bench.push(`oci-${compression}:1`, spec);
      const image = await images.ensure(ns, ref, "IfNotPresent");
      assert.equal(image.ref, ref);
      assert.equal(image.pin, `${bench.registry.host}/oci-${compression}@${image.digest}`);
      assert.deepEqual(image.identity, { uid: 1000, gid: 1000, additionalGids: [1000], home: "/home/app" });
      const { env, ...config } = image.config;
      assert.deepEqual(config, { entrypoint: ["/bin/sh"], cmd: ["-c", "true"], workingDir: "/w", user: "app" });
      assert.ok(env.includes("A=b=c"));
      assert.ok(await bench.containerd.snapshots.stat(image.chainId, { namespace: ns }));

      const lines = await checked(bench.socket, ns);
      assert.equal(lines.length, 2);
      for (const line of lines) assert.match(line, /complete \(3\/3\).* true$/);
      const state = await stateOf(bench.containerd, ns);
      assert.deepEqual([state.leases, state.ingests], [[], []]);
      assert.deepEqual(await images.resolve(ns, ref), image);
      assert.deepEqual(await images.resolve(ns, image.pin), { ...image, ref: image.pin });
      assert.deepEqual(await images.ensure(ns, ref, "Never"), image);
    });

  test("a docker schema 2 image", async () => {
    await using images = await bench.open();
    const ns = newNamespace();
    await writeImage(`${bench.dir}/v2s2.tar`);
    const ref = `${bench.registry.host}/v2s2:1`;
    const to = ["--format", "v2s2", "--dest-tls-verify=false", `oci-archive:${bench.dir}/v2s2.tar`, `docker://${ref}`];
    await run("skopeo", ["--insecure-policy", "copy", "--quiet", ...to]);
    const image = await images.ensure(ns, ref, "Always");
    const record = await bench.containerd.images.get(image.pin, { namespace: ns });
    assert.match(record!.target.media_type, /docker\.distribution\.manifest\.v2/);
    for (const line of await checked(bench.socket, ns)) assert.match(line, /complete .* true$/);
  });

  /** Pushes an index of images for these architectures under one more tag. */
  async function pushIndex(repo: string, architectures: string[]): Promise<string> {
    const manifests = [];
    for (const architecture of architectures) {
      const ref = await bench.push(`${repo}:${architecture}`, { architecture });
      const accept = "application/vnd.oci.image.manifest.v1+json";
      const url = `http://${bench.registry.host}/v2/${repo}/manifests/${ref.slice(ref.lastIndexOf(":") + 1)}`;
      const answer = await fetch(url, { headers: { accept } });
      const size = (await answer.arrayBuffer()).byteLength;
      const digest = answer.headers.get("docker-content-digest");
      manifests.push({ mediaType: accept, digest, size, platform: { os: "linux", architecture } });
    }
    const mediaType = "application/vnd.oci.image.index.v1+json";
    const body = JSON.stringify({ schemaVersion: 2, mediaType, manifests });
    const url = `http://${bench.registry.host}/v2/${repo}/manifests/all`;
    const put = await fetch(url, { method: "PUT", body, headers: { "content-type": mediaType } });
    assert.equal(put.status, 201);
    return `${bench.registry.host}/${repo}:all`;
  }

  test("an index: the manifest for this machine is taken, and the index is what is pinned", async () => {
    await using images = await bench.open();
    const ns = newNamespace();
    const own = process.arch === "x64" ? "amd64" : process.arch;
    const ref = await pushIndex("multi", ["s390x", own]);
    const image = await images.ensure(ns, ref, "Always");
    const record = await bench.containerd.images.get(ref, { namespace: ns });
    assert.equal(record!.target.digest, image.digest);
    assert.match(record!.target.media_type, /image\.index/);
    for (const line of await checked(bench.socket, ns)) assert.match(line, /complete .* true$/);
    assert.deepEqual(await images.ensure(ns, ref, "Always"), image);
  });

  test("an image for other machines only is refused with what it is for", async () => {
    await using images = await bench.open();
    const ns = newNamespace();
    const index = await pushIndex("foreign", ["s390x", "ppc64le"]);
    await assert.rejects(
      images.ensure(ns, index, "Always"),
      failsWith("IMAGE_PLATFORM", /linux\/s390x, linux\/ppc64le/),
    );
    const single = `${bench.registry.host}/foreign:s390x`;
    await assert.rejects(images.ensure(ns, single, "Always"), failsWith("IMAGE_PLATFORM", /linux\/s390x/));
    await assertNothingLeft(bench.containerd, ns);
  });

  test("what is not in the registry, and a registry that is not there", async () => {
    await using images = await bench.open();
    const ns = newNamespace();
    const ref = await bench.push("known:1");
    for (const missing of [ref.replace(":1", ":2"), `${bench.registry.host}/unknown:1`])
      await assert.rejects(images.ensure(ns, missing, "Always"), failsWith("IMAGE_NOT_FOUND", /does not exist on 127/));
    await assert.rejects(images.ensure(ns, ref, "Never"), failsWith("IMAGE_MISSING"));
    await assert.rejects(
      images.ensure(ns, "127.0.0.1:1/x", "Always"),
      failsWith("IMAGE_REGISTRY_UNREACHABLE", /refused/),
    );
    await assertNothingLeft(bench.containerd, ns);
  });

  for (const token of [false, true])
    test(`a private registry with ${token ? "tokens" : "Basic authentication"}: right, wrong and no login`, async () => {
      await using tmp = await tmpDir();
      await using registry = await openRegistry({ dir: tmp.path, auth: login, token });
      const ref = await push(bench.dir, registry, "team/private:1");
      const credentialsFile = `${tmp.path}/config.json`;
      await using images = await bench.open({ credentialsFile });
      const ns = newNamespace();
      const refused = (why: RegExp) =>
        assert.rejects(images.ensure(ns, ref, "Always"), failsWith("IMAGE_LOGIN_REFUSED", why));
      await refused(/no login for it was found in .*config\.json/);
      await writeLogins(credentialsFile, registry.host, "wrong");
      await refused(/the login from .*config\.json was used/);
      await assertNothingLeft(bench.containerd, ns);
      await writeLogins(credentialsFile, registry.host, login.password);
      await images.ensure(ns, ref, "Always");
      if (token) assert.ok(registry.scopes.includes("repository:team/private:pull"));
    });

  test("a login is not sent on to the storage that blobs are redirected to", async () => {
    await using tmp = await tmpDir();
    await using registry = await openRegistry({ dir: `${tmp.path}/a`, auth: login, token: true });
    await using storage = await openRegistry({ dir: `${tmp.path}/b` });
    await writeImage(`${tmp.path}/image.tar`);
    await registry.push(`${tmp.path}/image.tar`, "app:1");
    await storage.push(`${tmp.path}/image.tar`, "app:1");
    await using cdn = await openRegistryProxy(storage.host);
    await using front = await openRegistryProxy(registry.host);
    cdn.behaviour = { refuseLogins: true };
    front.behaviour = { redirectBlobsTo: cdn.host };
    const credentialsFile = `${tmp.path}/config.json`;
    await writeLogins(credentialsFile, front.host, login.password);
    await using images = await bench.open({ credentialsFile });
    await images.ensure(newNamespace(), `${front.host}/app:1`, "Always");
    assert.ok(front.asked.some((a) => a.authorization?.startsWith("Bearer ")));
    assert.ok(cdn.asked.length > 0);
    assert.ok(cdn.asked.every((a) => a.authorization === undefined));
  });

  test("a token that is no longer good is renewed without asking anybody", async () => {
    await using tmp = await tmpDir();
    await using registry = await openRegistry({ dir: tmp.path, auth: login, token: true });
    await using front = await openRegistryProxy(registry.host);
    const ref = (await push(tmp.path, registry, "app:1")).replace(registry.host, front.host);
    const credentialsFile = `${tmp.path}/config.json`;
    await writeLogins(credentialsFile, front.host, login.password);
    await using images = await bench.open({ credentialsFile });
    const ns = newNamespace();
    await images.ensure(ns, ref, "Always");
    const refusal = await fetch(`http://${registry.host}/v2/app/manifests/1`);
    const challenge = refusal.headers.get("www-authenticate")!;
    const before = registry.scopes.length;
    front.behaviour = { answers: [{ status: 401, headers: { "www-authenticate": challenge } }] };
    front.asked.length = 0;
    await images.ensure(ns, ref, "Always");
    assert.equal(registry.scopes.length, before + 1);
    assert.deepEqual(
      front.asked.map((a) => a.authorization?.split(" ")[0]),
      ["Bearer", "Bearer"],
    );
  });

  test("a registry with a certificate of a private CA, which is trusted once it is named", async () => {
    await using tmp = await tmpDir();
    const [key, cert] = [`${tmp.path}/key.pem`, `${tmp.path}/cert.pem`];
    const made = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=test", "-days", "2"];
    await run("openssl", ["req", "-x509", ...made, "-addext", "subjectAltName=IP:127.0.0.1"]);
    const tls = { key: await readFile(key), cert: await readFile(cert) };
    await using front = await openRegistryProxy(bench.registry.host, tls);
    const ref = (await bench.push("tls:1")).replace(bench.registry.host, front.host);
    const ns = newNamespace();
    const open = (caFile?: string, plainHttp = false) =>
      bench.open({ registries: [{ host: front.host, mirrors: [], plainHttp, ...(caFile && { caFile }) }] });

    await using untrusting = await open();
    const distrusted = failsWith("IMAGE_REGISTRY_UNREACHABLE", /certificate is not trusted/);
    await assert.rejects(untrusting.ensure(ns, ref, "Always"), distrusted);
    await using misled = await open(`${tmp.path}/none.pem`);
    await assert.rejects(misled.ensure(ns, ref, "Always"), failsWith("CONFIG", /none\.pem/));
    await using trusting = await open(cert);
    await trusting.ensure(ns, ref, "Always");
    await using plain = await bench.open({
      registries: [{ host: bench.registry.host, mirrors: [], plainHttp: false }],
    });
    const noTls = failsWith("IMAGE_REGISTRY_UNREACHABLE", /does not speak TLS/);
    await assert.rejects(plain.ensure(newNamespace(), `${bench.registry.host}/tls:1`, "Always"), noTls);
  });

  test("redirects without end", async () => {
    await using proxy = await openRegistryProxy(bench.registry.host);
    proxy.behaviour = { redirectBlobsTo: proxy.host };
    const ref = (await bench.push("ring:1")).replace(bench.registry.host, proxy.host);
    await using images = await bench.open();
    const ns = newNamespace();
    await assert.rejects(images.ensure(ns, ref, "Always"), failsWith("IMAGE_REGISTRY_UNREACHABLE", /redirects/));
    await assertNothingLeft(bench.containerd, ns);
  });

  for (const corrupt of ["blobs", "manifests"] as const)
    test(`wrong ${corrupt} are refused and nothing is left`, async () => {
      await using proxy = await openRegistryProxy(bench.registry.host);
      proxy.behaviour = { corrupt };
      const ref = (await bench.push(`corrupt-${corrupt}:1`)).replace(bench.registry.host, proxy.host);
      await using images = await bench.open();
      const ns = newNamespace();
      await assert.rejects(images.ensure(ns, ref, "Always"), failsWith("IMAGE_DIGEST_MISMATCH"));
      await assertNothingLeft(bench.containerd, ns);
      proxy.behaviour = {};
      await images.ensure(ns, ref, "Always");
    });

  for (const ignoreRange of [false, true])
    test(`a transfer that breaks goes on where it stopped${ignoreRange ? ", also without ranges" : ""}`, async () => {
      await using proxy = await openRegistryProxy(bench.registry.host);
      const layers: LayerEntry[][] = [[{ path: "/big", content: randomBytes(20_000_000) }]];
      const pushed = await bench.push(`broken-${ignoreRange}:1`, { layers });
      proxy.behaviour = { cuts: 2, cutAfter: 9_000_000, ignoreRange };
      await using images = await bench.open();
      const ns = newNamespace();
      await images.ensure(ns, pushed.replace(bench.registry.host, proxy.host), "Always");
      // What a break finds in buffers, some MB when the machine is busy, is lost; what was written is not asked for again.
      const ranges = proxy.asked.map((a) => /^bytes=(\d+)-$/.exec(a.range ?? "")?.[1]).filter((r) => r !== undefined);
      assert.ok(ranges.length > 0 && ranges.every((r) => Number(r) > 1_000_000), ranges.join());
      assert.equal(proxy.behaviour.cuts, 0);
      for (const line of await checked(bench.socket, ns)) assert.match(line, /complete .* true$/);
    });

  test("a registry that is busy is asked again, and one that stays so is given up", async () => {
    await using proxy = await openRegistryProxy(bench.registry.host);
    const ref = (await bench.push("busy:1")).replace(bench.registry.host, proxy.host);
    await using images = await bench.open();
    const ns = newNamespace();
    proxy.behaviour = { answers: [{ status: 503 }, { status: 429, headers: { "retry-after": "1" } }] };
    const started = performance.now();
    await images.ensure(ns, ref, "Always");
    assert.ok(performance.now() - started > 1000);
    const limited = { status: 429, body: '{"errors":[{"code":"TOOMANYREQUESTS","message":"slow \\u001b[31mdown"}]}' };
    proxy.behaviour = { answers: Array(20).fill(limited) };
    await assert.rejects(
      images.ensure(newNamespace(), ref, "Always"),
      failsWith("IMAGE_REGISTRY_UNREACHABLE", /429: slow +\[31mdown/),
    );
  });

  test("a mirror is asked first; what it lacks or when it is down, the host gives", async () => {
    await using own = await openRegistryProxy(bench.registry.host);
    await using mirror = await openRegistryProxy(bench.registry.host);
    const open = (mirrors: string[]) => bench.open({ registries: [{ host: own.host, mirrors }] });
    const ref = (await bench.push("mirrored:1")).replace(bench.registry.host, own.host);

    await using first = await open([mirror.host]);
    await first.ensure(newNamespace(), ref, "Always");
    assert.equal(own.asked.length, 0);
    assert.ok(mirror.asked.length > 0);

    await using down = await open(["127.0.0.1:1", mirror.host]);
    own.asked.length = mirror.asked.length = 0;
    await down.ensure(newNamespace(), ref, "Always");
    assert.equal(own.asked.length, 0);

    mirror.behaviour = { answers: Array(20).fill({ status: 404 }) };
    await using lacking = await open([mirror.host]);
    await lacking.ensure(newNamespace(), ref, "Always");
    assert.ok(own.asked.length > 0);
  });

  test("a mirror with wrong bytes does not fail the pull", async () => {
    await using own = await openRegistryProxy(bench.registry.host);
    await using mirror = await openRegistryProxy(bench.registry.host);
    mirror.behaviour = { corrupt: "blobs" };
    const ref = (await bench.push("mirror-wrong:1")).replace(bench.registry.host, own.host);
    await using images = await bench.open({ registries: [{ host: own.host, mirrors: [mirror.host] }] });
    await images.ensure(newNamespace(), ref, "Always");
    assert.ok(own.asked.some((a) => a.path.includes("/blobs/")));
  });

  test("a second namespace takes the blobs from the first; an unchanged tag costs one question", async () => {
    await using proxy = await openRegistryProxy(bench.registry.host);
    const ref = (await bench.push("shared:1")).replace(bench.registry.host, proxy.host);
    await using images = await bench.open();
    const [one, two] = [newNamespace(), newNamespace()];
    await images.ensure(one, ref, "Always");
    proxy.asked.length = 0;
    await images.ensure(two, ref, "Always");
    assert.deepEqual(
      proxy.asked.map((a) => `${a.method} ${a.path}`),
      ["GET /v2/shared/manifests/1"],
    );
    for (const line of await checked(bench.socket, two)) assert.match(line, /complete .* true$/);

    proxy.asked.length = 0;
    const [again] = await Promise.all([1, 2, 3].map(() => images.ensure(one, ref, "Always")));
    assert.deepEqual(
      proxy.asked.map((a) => a.method),
      ["HEAD"],
    );
    proxy.asked.length = 0;
    await images.ensure(one, again!.pin, "Always");
    await images.ensure(one, ref, "IfNotPresent");
    assert.equal(proxy.asked.length, 0, "a digest cannot change");
  });

  test("a tag that moved: Always follows it, the pin keeps the old content until it is given back", async () => {
    await using images = await bench.open();
    const ns = newNamespace();
    const ref = await bench.push("moving:1");
    const old = await images.ensure(ns, ref, "Always");
    await bench.push("moving:1");
    assert.equal((await images.ensure(ns, ref, "IfNotPresent")).digest, old.digest);
    const fresh = await images.ensure(ns, ref, "Always");
    assert.notEqual(fresh.digest, old.digest);
    await forceGc(bench.containerd, ns);
    assert.equal((await images.resolve(ns, old.pin))?.chainId, old.chainId);
    assert.deepEqual((await images.pins(ns)).toSorted(), [fresh.pin, old.pin].toSorted());

    await images.unpin(ns, old.pin);
    await images.unpin(ns, old.pin);
    await forceGc(bench.containerd, ns);
    assert.equal(await images.resolve(ns, old.pin), undefined);
    assert.deepEqual(await images.resolve(ns, ref), fresh);
    await images.unpin(ns, fresh.pin);
    await images.remove(ns, ref);
    await assertNothingLeft(bench.containerd, ns);
  });

  test("callers share a pull; it ends when the last of them has left, and leaves nothing", async () => {
    await using proxy = await openRegistryProxy(bench.registry.host);
    const layers: LayerEntry[][] = [[{ path: "/big", content: randomBytes(20_000_000) }]];
    const ref = (await bench.push("left:1", { layers })).replace(bench.registry.host, proxy.host);
    await using images = await bench.open();
    const ns = newNamespace();
    proxy.behaviour = { hang: true, cutAfter: 9_000_000 };
    const [one, two] = [new AbortController(), new AbortController()];
    const first = images.ensure(ns, ref, "Always", one.signal);
    const second = images.ensure(ns, ref, "Always", two.signal);
    const [firstEnd, secondEnd] = [assert.rejects(first, /one left/), assert.rejects(second, /two left/)];
    const [pull] = await eventually(
      async () => images.pulls.list(ns),
      (pulls) => pulls.length === 1 && pulls[0]!.progress.doneBytes > 8_000_000,
    );
    assert.deepEqual([pull!.name, pull!.progress.phase], [ref, "download"]);
    assert.ok(pull!.progress.totalBytes > 20_000_000);
    assert.deepEqual(images.pulls.list("other"), []);
    one.abort(new Error("one left"));
    await firstEnd;
    assert.equal((await stateOf(bench.containerd, ns)).leases.length, 1, "goes on for the other");
    two.abort(new Error("two left"));
    await secondEnd;
    await images[Symbol.asyncDispose]();
    assert.deepEqual(images.pulls.list(ns), []);
    await assertNothingLeft(bench.containerd, ns);
    assert.equal(proxy.asked.filter((a) => a.path.includes("/manifests/")).length, 1);
  });

  test("two images with the same layers at once", async () => {
    await using images = await bench.open();
    const ns = newNamespace();
    const layers: LayerEntry[][] = [await baseLayer(), [{ path: "/r", content: randomBytes(2_000_000) }]];
    const a = await bench.push("twin-a:1", { layers, cmd: ["a"] });
    const b = await bench.push("twin-b:1", { layers, cmd: ["b"] });
    const [one, two] = await Promise.all([images.ensure(ns, a, "Always"), images.ensure(ns, b, "Always")]);
    assert.equal(one.chainId, two.chainId);
    assert.notEqual(one.digest, two.digest);
    const { snapshots, leases, ingests } = await stateOf(bench.containerd, ns);
    assert.deepEqual([snapshots.length, leases, ingests], [2, [], []]);
  });

  const archives: [sentence: string, write: typeof writeOciArchive, packed: boolean][] = [
    ["an OCI archive", writeOciArchive, false],
    ["an OCI archive with gzip", writeOciArchive, true],
    ["a docker archive", writeDockerArchive, false],
    ["a docker archive with gzip", writeDockerArchive, true],
  ];
  for (const [sentence, write, packed] of archives)
    test(`${sentence} is imported under its name and under a given one`, async () => {
      await using tmp = await tmpDir();
      await using images = await bench.open();
      const ns = newNamespace();
      const layers: LayerEntry[][] = [await baseLayer(), [{ path: "/r", content: randomBytes(5_000_000) }]];
      await write(`${tmp.path}/a.tar`, { ref: "docker.io/library/offline:7", layers, user: "nobody", cmd: ["x"] });
      if (packed)
        await pipeline(
          createReadStream(`${tmp.path}/a.tar`),
          createGzip({ level: 1 }),
          createWriteStream(`${tmp.path}/a.tgz`),
        );
      const file = `${tmp.path}/a.${packed ? "tgz" : "tar"}`;

      const [image, ...more] = await images.import(ns, file);
      assert.deepEqual([image?.ref, more], ["docker.io/library/offline:7", []]);
      assert.equal(image!.identity.uid, 65534);
      assert.deepEqual(await images.ensure(ns, "offline:7", "Never"), image);
      const [named] = await images.import(ns, file, "ghcr.io/team/app:1");
      assert.equal(named?.ref, "ghcr.io/team/app:1");
      assert.equal(named?.digest, image!.digest);
      const lines = await checked(bench.socket, ns);
      assert.equal(lines.length, 4);
      for (const line of lines) assert.match(line, /complete .* true$/);
      const { leases, ingests } = await stateOf(bench.containerd, ns);
      assert.deepEqual([leases, ingests], [[], []]);
    });

  test("an archive of skopeo, with tar inside gzip layers, and one of ctr", async () => {
    await using tmp = await tmpDir();
    await using images = await bench.open();
    const ref = await bench.push("exported:1");
    const [one, two, three] = [newNamespace(), newNamespace(), newNamespace()];
    const from = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", `docker://${ref}`];
    await run("skopeo", [...from, `docker-archive:${tmp.path}/d.tar:team/app:1`]);
    await run("skopeo", [...from, `oci-archive:${tmp.path}/o.tar:team/app:1`]);
    assert.equal((await images.import(one, `${tmp.path}/d.tar`))[0]?.ref, "docker.io/team/app:1");
    assert.equal((await images.import(two, `${tmp.path}/o.tar`))[0]?.ref, "docker.io/team/app:1");
    const { ref: name } = await images.ensure(three, ref, "Always");
    await run("ctr", ["-a", bench.socket, "-n", three, "images", "export", `${tmp.path}/c.tar`, name]);
    assert.equal((await images.import(one, `${tmp.path}/c.tar`))[0]?.ref, ref);
    for (const ns of [one, two])
      for (const line of await checked(bench.socket, ns)) assert.match(line, /complete .* true$/);
  });

  test("bad archives: damaged, incomplete, of no image; nothing is left", async () => {
    await using tmp = await tmpDir();
    await using images = await bench.open();
    const ns = newNamespace();
    const file = `${tmp.path}/a.tar`;
    const layers: LayerEntry[][] = [[{ path: "/r", content: randomBytes(300_000) }]];
    await writeImage(file, { ref: "docker.io/library/bad:1", layers });
    const bytes = await readFile(file);
    const refused = async (change: (b: Buffer) => Buffer, code: ErrorCode) => {
      await writeFile(`${tmp.path}/b.tar`, change(Buffer.from(bytes)));
      await assert.rejects(images.import(ns, `${tmp.path}/b.tar`), failsWith(code));
      await assertNothingLeft(bench.containerd, ns);
    };
    await refused(() => Buffer.from("no archive"), "IMAGE_BAD_ARCHIVE");
    await refused((b) => b.subarray(0, b.length >> 1), "IMAGE_BAD_ARCHIVE");
    await refused(
      (b) => Buffer.from(b.toString("latin1").replaceAll("index.json", "index.txt1".slice(0, 10)), "latin1"),
      "IMAGE_BAD_ARCHIVE",
    );
    await refused((b) => {
      b[b.length >> 1]! ^= 1; // in the middle of the largest layer
      return b;
    }, "IMAGE_BAD_ARCHIVE");
    await assert.rejects(images.import(ns, `${tmp.path}/none.tar`), failsWith("IMAGE_BAD_ARCHIVE"));
    await run("tar", ["-C", tmp.path, "-cf", `${tmp.path}/c.tar`, "a.tar"]);
    await assert.rejects(images.import(ns, `${tmp.path}/c.tar`), failsWith("IMAGE_BAD_ARCHIVE", /manifest\.json/));
    await assertNothingLeft(bench.containerd, ns);
  });

  test("an image that ctr imported is unpacked when it is wanted", async () => {
    await using tmp = await tmpDir();
    await using images = await bench.open();
    const ns = newNamespace();
    await writeImage(`${tmp.path}/a.tar`, { ref: "docker.io/library/by-ctr:1" });
    await run("ctr", ["-a", bench.socket, "-n", ns, "images", "import", "--no-unpack", `${tmp.path}/a.tar`]).catch(() =>
      run("ctr", ["-a", bench.socket, "-n", ns, "images", "import", `${tmp.path}/a.tar`]),
    );
    assert.equal(await images.resolve(ns, "by-ctr:1"), undefined);
    const image = await images.ensure(ns, "by-ctr:1", "Never");
    assert.deepEqual(await images.resolve(ns, "by-ctr:1"), image);
    for (const line of await checked(bench.socket, ns)) assert.match(line, /complete .* true$/);
    await forceGc(bench.containerd, ns);
    assert.ok(await images.resolve(ns, image.pin));
  });

  test("USER is looked up inside the image, whatever links its /etc/passwd is", async () => {
    await using images = await bench.open();
    const ns = newNamespace();
    const trap = "trap:x:4711:4711::/:/bin/sh\n";
    await writeFile(`${bench.dir}/outside`, trap);
    const lookup = async (tag: string, user: string, layer: LayerEntry[]) =>
      (await images.ensure(ns, await bench.push(`user:${tag}`, { layers: [layer], user }), "Always")).identity;
    const passwd = "app:x:1001:1001::/srv:/bin/sh\n";
    const group = "app:x:1001:\nwheel:x:10:app\n";

    const files: LayerEntry[] = [
      { path: "/etc/passwd", content: passwd },
      { path: "/etc/group", content: group },
    ];
    const found = { uid: 1001, gid: 1001, additionalGids: [1001, 10], home: "/srv" };
    assert.deepEqual(await lookup("plain", "app", files), found);
    const links: LayerEntry[] = [
      { path: "/etc", symlink: "/../../real/./etc" },
      { path: "/real/etc/passwd", symlink: "../../../../../../data/passwd" },
      { path: "/real/etc/group", symlink: "/data/group" },
      { path: "/data/passwd", content: passwd },
      { path: "/data/group", content: group },
    ];
    assert.deepEqual(await lookup("links", "app", links), found);
    const hostile: [string, LayerEntry][] = [
      ["absolute", { path: "/etc/passwd", symlink: `${bench.dir}/outside` }],
      ["relative", { path: "/etc/passwd", symlink: `../../../../../../../../..${bench.dir}/outside` }],
      ["proc", { path: "/etc/passwd", symlink: "/proc/self/root/etc/passwd" }],
      ["ring", { path: "/etc/passwd", symlink: "passwd" }],
      ["dir", { path: "/etc/passwd", dir: true }],
    ];
    for (const [name, entry] of hostile) {
      await assert.rejects(lookup(name, "trap", [entry]), failsWith("IMAGE_UNUSABLE", /trap/));
      assert.deepEqual(await lookup(`${name}-number`, "4711", [entry]), { uid: 4711, gid: 0, additionalGids: [0] });
    }
    const huge = { path: "/etc/passwd", content: `${"#".repeat(1024 * 1024)}\n${trap}` };
    await assert.rejects(lookup("huge", "trap", [huge]), failsWith("IMAGE_UNUSABLE"));

    assert.deepEqual(await readdir(`${bench.dir}/views`), []);
    const { snapshots, leases } = await stateOf(bench.containerd, ns);
    assert.deepEqual(leases, []);
    assert.ok(snapshots.every((name) => name.startsWith("sha256:")));
  });

  test("USER of an image with more layers than mount options have room for", async () => {
    await using images = await bench.open();
    const layers: LayerEntry[][] = Array.from({ length: 60 }, (_, i) => [{ path: `/f${i}`, content: String(i) }]);
    layers.push(await baseLayer());
    const ref = await bench.push("layers:1", { layers, user: "app" });
    assert.equal((await images.ensure(newNamespace(), ref, "Always")).identity.uid, 1000);
  });

  test("a sweep removes what a dead process left, and nothing else", async () => {
    await using images = await bench.open();
    const ns = newNamespace();
    const image = await images.ensure(ns, await bench.push("swept:1"), "Always");
    const { leases, snapshots, content } = bench.containerd;
    const lease = await leases.open(ns, "pull", 3_600_000);
    const other = await leases.open(ns, "start", 3_600_000);
    const call = { namespace: ns, lease: lease.id };
    await snapshots.prepare("napd-extract-dead-1 sha256:x", image.chainId, {}, call);
    await snapshots.view("napd-view-dead-1", image.chainId, {}, call);
    await snapshots.prepare("function-1", image.chainId, {}, { namespace: ns, lease: other.id });
    const stream = content.write(call);
    stream.on("data", () => {}).on("error", () => {});
    stream.write({ action: "WRITE", ref: "napd-blob-dead-sha256:y", total: 10, offset: 0, data: Buffer.from("half") });
    await new Promise((resolve) => stream.once("data", resolve));
    stream.end();
    await mkdir(`${bench.dir}/views/napd-view-dead-1`, { recursive: true });

    await images.sweep(ns);
    const state = await stateOf(bench.containerd, ns);
    assert.deepEqual(state.ingests, []);
    assert.deepEqual(state.leases, [other.id]);
    assert.deepEqual(
      state.snapshots.filter((name) => !name.startsWith("sha256:")),
      ["function-1"],
    );
    assert.deepEqual(await readdir(`${bench.dir}/views`), []);
    assert.deepEqual(await images.resolve(ns, image.ref), image);
  });
});

suite("a full disk", { skip: process.getuid?.() !== 0 && "needs root" }, () => {
  const rows: [sentence: string, layer: LayerEntry][] = [
    ["while blobs are written", { path: "/big", content: randomBytes(80_000_000) }],
    ["while layers are unpacked", { path: "/big", content: Buffer.alloc(200_000_000) }],
  ];
  for (const [sentence, layer] of rows)
    test(`${sentence}: it is said so, the space is free again, and a smaller image fits`, async () => {
      await using up = new AsyncDisposableStack();
      const { path } = up.use(await tmpDir());
      await mkdir(`${path}/c`);
      await run("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs", `${path}/c`]);
      const server = up.use(await openPrivateContainerd({ dir: `${path}/c`, runDir: `${path}/r` }));
      const containerd = up.use(await openContainerd({ socket: server.socket }));
      const registry = up.use(await openRegistry({ dir: `${path}/registry` }));
      const images = up.use(await openImages(containerd, path));
      const free = async () => {
        const { bavail, bsize } = await statfs(`${path}/c`);
        return bavail * bsize;
      };
      const before = await free();
      const ref = await push(path, registry, "large:1", { layers: [[layer]] });
      await assert.rejects(images.ensure("full", ref, "Always"), failsWith("IMAGE_DISK_FULL", /no space left/));
      await assertNothingLeft(containerd, "full");
      assert.ok((await free()) > before - 2_000_000, `${before} ${await free()}`);
      await images.ensure("full", await push(path, registry, "small:1"), "Always");
    });
});

/** Garbage collection runs behind a deletion that is told to wait for it. */
async function forceGc(containerd: Containerd, namespace: string): Promise<void> {
  const { id } = await containerd.leases.open(namespace, "test", 60_000);
  await containerd.leases.delete(namespace, id, true);
}
