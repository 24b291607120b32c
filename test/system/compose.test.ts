/** Images of a base and a layer over the API: what is kept, what is refused, and what a crash leaves. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { gzipSync } from "node:zlib";
import { type TarHead, tarEnd, tarHeader, tarPadding } from "../../src/base/tar.ts";
import { webImage } from "../support/images.ts";
import { openRegistry, type Registry } from "../support/registry.ts";
import { type Answer, eventually, openWorld, type World } from "../support/world.ts";

type Entry = Partial<TarHead> & { readonly name: string; readonly text?: string };

function layerOf(...entries: Entry[]): Buffer {
  const pieces = entries.flatMap(({ text = "", ...head }) => [
    tarHeader({ size: text.length, mode: 0o644, mtime: 0, ...head }),
    Buffer.from(text),
    tarPadding(text.length),
  ]);
  return Buffer.concat([...pieces, tarEnd]);
}

const digestOf = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const page = (text: string) => layerOf({ name: "www/index.html", text });

suite("images of a base and a layer", () => {
  const up = new AsyncDisposableStack();
  const login = { user: "puller", password: "secret" };
  let world: World;
  let registry: Registry;
  let locked: Registry;
  let points: string;
  /** What there is with the base alone. */
  let calm: string[];

  const start = () =>
    world.start({ "images.max_upload": "20Mi", "functions.grace": "50ms" }, { NAPD_FAILPOINTS: `@${points}` });
  const arm = (text: string) => writeFile(points, text);

  before(async () => {
    world = up.use(await openWorld());
    points = `${world.dir}/failpoints`;
    await arm("");
    await start();
    const archive = await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "base");
    await world.import(archive);
    registry = up.use(await openRegistry({ dir: `${world.dir}/registry` }));
    locked = up.use(await openRegistry({ dir: `${world.dir}/locked`, auth: login, token: true }));
    await registry.push(archive, "team/web:1");
    await locked.push(archive, "team/web:1");
    calm = await settled();
  });
  after(() => up.disposeAsync());

  /** What of images there is once containerd has collected its garbage; the base's pin comes and goes. */
  async function settled(): Promise<string[]> {
    await world.ctr("leases", "create", "--id", "collect");
    await world.ctr("leases", "delete", "--sync", "collect");
    return (await world.traces()).filter(
      (t) => /^(image|content|snapshot|lease) /.test(t) && !t.startsWith("image docker.io/library/web@"),
    );
  }

  async function compose(
    parts: { name?: string; base?: string; layer?: string; config?: object; pull?: string },
    body?: Buffer,
  ): Promise<Answer> {
    const { config, ...others } = { name: "made:1", base: "web:1", ...parts };
    const query = new URLSearchParams({ ...others, ...(config && { config: JSON.stringify(config) }) });
    const password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
    const authorization = `Basic ${Buffer.from(`admin:${password}`).toString("base64")}`;
    const response = await fetch(`${world.url}/system/images?${query}`, {
      ...{ method: "POST", headers: { authorization } },
      ...(body && { body }),
    });
    return { status: response.status, headers: response.headers, text: await response.text() };
  }

  async function made(...given: Parameters<typeof compose>): Promise<{ name: string; digest: string }> {
    const answer = await compose(...given);
    assert.equal(answer.status, 201, answer.text);
    return JSON.parse(answer.text)[0];
  }

  async function deployed(image: string, more = {}): Promise<AsyncDisposable> {
    const answer = await world.api("POST", "/system/functions", { service: "fn", image, ...more });
    assert.equal(answer.status, 202, answer.text);
    return {
      async [Symbol.asyncDispose]() {
        await world.api("DELETE", "/system/functions", { functionName: "fn" });
      },
    };
  }

  /** Nothing is left of what was composed, and of bases that were fetched for it. */
  async function assertCalm(): Promise<void> {
    const all: { name: string }[] = JSON.parse((await world.api("GET", "/system/images")).text);
    for (const { name } of all.filter((image) => image.name !== "docker.io/library/web:1"))
      assert.equal((await world.api("DELETE", `/system/images?name=${name}`)).status, 202);
    assert.deepEqual(await settled(), calm);
    assert.deepEqual(await readdir(`${world.paths.data}/uploads`).catch(() => []), []);
  }

  test("on a base that is here: the same content is the same image, however it was sent, and no registry is asked for it", async () => {
    const layer = page("one");
    const missing = await compose({ layer: digestOf(layer) });
    assert.deepEqual([missing.status, missing.text.includes(`${digestOf(layer)} is not in namespace`)], [404, true]);
    const first = await made({}, layer);
    assert.equal(first.name, "docker.io/library/made:1");
    for (const body of [layer, gzipSync(layer)]) assert.equal((await made({}, body)).digest, first.digest);
    assert.equal((await made({ layer: digestOf(layer) })).digest, first.digest);
    {
      await using _ = await deployed("made:1"); // with the pull policy Always
      assert.equal((await world.call("/function/fn")).text, "one");
      assert.equal((await world.api("DELETE", "/system/images?name=made:1")).status, 409);
      // what is composed of it stands by itself
      assert.equal((await made({ name: "more:1", base: "made:1" }, page("two"))).name, "docker.io/library/more:1");
      const update = await world.api("PUT", "/system/functions", { service: "fn", image: "more:1" });
      assert.equal(update.status, 202, update.text);
      assert.equal((await world.call("/function/fn")).text, "two");
      await eventually(
        () => world.api("DELETE", "/system/images?name=made:1"),
        ({ status }) => status === 202,
      );
      assert.equal((await world.call("/function/fn")).text, "two");
    }
    assert.equal((await world.api("DELETE", "/system/images?name=more:1")).status, 202);
    await assertCalm();
  });

  test("the base's configuration with what is changed, and its folders as they are", async () => {
    const layer = layerOf(
      { name: "home/app/here/text", text: "in the layer", uid: 1000, gid: 1000, mode: 0o640 },
      { name: "tmp/file", text: "x" },
      { name: "bin/link", type: "2", target: "busybox", mode: 0o777 },
      { name: "etc/.wh.group", text: "" },
    );
    const config = {
      ...{ env: { GREETING: "ä b", PATH: "/bin" }, workingDir: "/home/app/here", user: "app", labels: { a: "b" } },
      entrypoint: ["busybox"],
      cmd: ["sh", "-c", "ls -ldn /home/app /tmp > /tmp/ls; exec busybox httpd -f -p 8080 -h /"],
    };
    await made({ config }, layer);
    await using _ = await deployed("made:1");
    const get = async (path: string) => (await world.call(`/function/fn${path}`)).text;
    assert.equal(await get("/home/app/here/text"), "in the layer");
    assert.match(await get("/tmp/ls"), /^drwxr-xr-x .* 1000 +1000 .*\/home\/app\ndrwxrwxrwt .* 0 +0 .*\/tmp\n$/);
    assert.equal((await world.call("/function/fn/etc/group")).status, 404);
    const digest = (await world.ctr("images", "list")).split("\n").find((l) => l.includes("library/made:1"))!;
    const manifest = JSON.parse(await world.ctr("content", "get", /sha256:\w+/.exec(digest)![0]));
    const made1 = JSON.parse(await world.ctr("content", "get", manifest.config.digest));
    assert.deepEqual(made1.config, {
      Env: ["PATH=/bin", "GREETING=ä b"],
      Entrypoint: config.entrypoint,
      Cmd: config.cmd,
      WorkingDir: config.workingDir,
      User: "app",
      Labels: { a: "b" },
    });
    assert.equal(manifest.layers.at(-1).digest, digestOf(layer));
  });

  test("on a base of a registry, open or with a password, which is asked again only on request", async () => {
    await assertCalm();
    await made({ base: `${registry.host}/team/web:1` }, page("one"));
    const refused = await compose({ base: `${locked.host}/team/web:1` }, page("one"));
    assert.deepEqual([refused.status, refused.text.includes(locked.host)], [400, true], refused.text);
    const auth = Buffer.from(`${login.user}:${login.password}`).toString("base64");
    await writeFile(`${world.paths.data}/docker-config.json`, JSON.stringify({ auths: { [locked.host]: { auth } } }), {
      mode: 0o600,
    });
    await made({ base: `${locked.host}/team/web:1` }, page("two"));
    {
      await using _ = await deployed("made:1");
      assert.equal((await world.call("/function/fn")).text, "two");
    }
    const asked = async () => (await readFile(registry.logFile, "utf8")).match(/manifests/g)?.length ?? 0;
    const before = await asked();
    const parts = { base: `${registry.host}/team/web:1`, layer: digestOf(page("two")) };
    await made(parts);
    assert.equal(await asked(), before);
    await made({ ...parts, pull: "Always" });
    assert.ok((await asked()) > before);
    const never = await compose({ base: `${registry.host}/team/none:1`, pull: "Never" }, page("one"));
    assert.deepEqual([never.status, /not complete on this machine/.test(never.text)], [400, true]);
    await assertCalm();
  });

  test("on nothing at all", async () => {
    const layer = layerOf({ name: "home/app/public/index.html", text: "alone" });
    await made({ base: "scratch", config: { env: { mode: "static" }, user: "1000:1000" } }, layer);
    await using _ = await deployed("made:1", { annotations: { "napd.watchdog": "inject" } });
    assert.equal((await world.call("/function/fn")).text, "alone");
  });

  const link = (name: string, target: string, type: string): Entry => ({ name, target, type });
  const hostile: [what: string, body: Buffer, text: RegExp, status?: number][] = [
    ["nonsense", Buffer.from("x".repeat(2000)), /no tar file/],
    ["an absolute name", layerOf({ name: "/etc/passwd", text: "x" }), /absolute name/],
    ["a name that leads out", layerOf({ name: "a/../../etc/passwd", text: "x" }), /leads out of it/],
    ["a link that leads out", layerOf(link("a", "../../etc", "2")), /link to .* leads out/],
    ["a hard link that leads out", layerOf(link("a", "../etc/passwd", "1")), /leads out/],
    ["a hard link to the base", layerOf(link("a", "etc/passwd", "1")), /leads to no file before it/],
    ["a device", layerOf({ name: "dev/sda", type: "4" }), /has the device "dev\/sda"/],
    ["a character device", layerOf({ name: "dev/mem", type: "3" }), /has the device "dev\/mem"/],
    ["a pipe", layerOf({ name: "pipe", type: "6" }), /named pipe/],
    ["an unknown thing", layerOf({ name: "x", type: "Z" }), /unknown type/],
    ["a sparse file", layerOf({ name: "x", type: "S" }), /sparse/],
    ["the whiteout of a parent", layerOf({ name: "etc/.wh..." }), /whiteout of nothing/],
    ["the whiteout of its folder", layerOf({ name: "etc/.wh.." }), /whiteout of nothing/],
    ["the whiteout of a whiteout", layerOf({ name: "etc/.wh..wh.plnk" }), /whiteout of nothing/],
    ["a file that is cut off", layerOf({ name: "x", text: "x".repeat(5000) }).subarray(0, 2000), /ends too early/],
    ["a file of absurd size", layerOf({ name: "x", size: 2 ** 40 }), /ends too early/],
    ["gzip that is cut off", gzipSync(page("x".repeat(9000))).subarray(0, 60), /unexpected end|too early/],
    ["nothing in gzip", gzipSync(Buffer.alloc(0)), /empty/],
    ["too much", Buffer.alloc(21 * 2 ** 20), /larger than 20 MiB/, 413],
    ["a bomb", gzipSync(Buffer.alloc(64 * 2 ** 20)), /larger than 20 MiB/, 413],
    ["another layer than announced", Buffer.alloc(0), /is sha256:.* and not sha256:0{64}/],
  ];
  test("layers that are none, or senseless, are refused and leave nothing", async () => {
    await assertCalm();
    for (const [what, body, text, status = 400] of hostile) {
      const announced = body.length === 0 ? { layer: `sha256:${"0".repeat(64)}` } : {};
      const answer = await compose(announced, body.length === 0 ? page("x") : body);
      assert.deepEqual([answer.status, text.test(answer.text)], [status, true], `${what}: ${answer.text}`);
    }
    for (const parts of [{ name: "UPPER" }, { name: `made@sha256:${"0".repeat(64)}` }, { base: "UPPER" }])
      assert.equal((await compose(parts, page("x"))).status, 400, JSON.stringify(parts));
    // a user that the image does not have is found when everything else is done
    assert.equal((await compose({ config: { user: "nobody-there" } }, page("x"))).status, 400);
    await assertCalm();
  });

  test("a layer that writes through links of its own stays in its image", async () => {
    const layer = layerOf(link("out", "/etc", "2"), { name: "out/written", text: "inside" });
    await made({}, layer);
    await using _ = await deployed("made:1", {});
    assert.equal((await world.call("/function/fn")).text, "base");
    await assert.rejects(readFile("/etc/written"), { code: "ENOENT" });
  });

  for (const point of ["compose.layer", "compose.stored", "image.pinned"])
    test(`napd dies at ${point}: nothing is left but what a second try makes whole`, async () => {
      await assertCalm();
      const layer = page(point);
      await arm(`${point}=exit`);
      await assert.rejects(compose({}, layer));
      await arm("");
      await start();
      assert.equal((await world.api("GET", "/system/images")).text.includes("made:1"), false);
      assert.deepEqual(await settled(), calm);
      await made({}, layer);
      await using _ = await deployed("made:1");
      assert.equal((await world.call("/function/fn")).text, point);
    });
});
