/** From folders to answered calls without any builder: nap new, nap up and nap dev against a real napd. */
import assert from "node:assert/strict";
import { mkdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { buffer } from "node:stream/consumers";
import { after, before, suite, test } from "node:test";
import { baseLayer, type LayerEntry, librariesOf, writeOciArchive } from "../../scripts/oci-image.ts";
import { type Files, packLayer } from "../../src/cli/pack.ts";
import { type Ran, type RunOptions, nap as runNap } from "../support/nap.ts";
import { type Answer, eventually, openWorld, type World } from "../support/world.ts";

suite("functions without a builder", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  let cwd: string;
  let password: string;

  before(async () => {
    world = up.use(await openWorld());
    await world.start({ "functions.grace": "50ms" });
    cwd = `${world.dir}/work`;
    await mkdir(cwd);
    password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
    await nap(["login", "--password", password]);
    // what the templates are based on, made of this machine's programs
    await writeOciArchive(`${world.dir}/base.tar`, { ref: "docker.io/library/alpine:3", layers: [await baseLayer()] });
    await world.import(`${world.dir}/base.tar`);
    const bash = [{ path: "/bin/bash", file: "/bin/bash" }, ...(await librariesOf("/bin/bash"))];
    await compose("busybox:1", []);
    await compose("bash:5.3", bash);
  });
  after(() => up.disposeAsync());

  const run = (args: string[], options: RunOptions = {}, place = cwd): Promise<Ran> =>
    runNap({ home: world.dir, cwd: place }, args, { env: { OPENFAAS_URL: world.url }, ...options });

  async function nap(args: string[], place = cwd): Promise<Ran> {
    const ran = await run(args, {}, place);
    assert.equal(ran.exit, 0, `nap ${args.join(" ")}: ${ran.stdout}${ran.stderr}`);
    return ran;
  }

  /** An image of alpine:3 and programs. */
  async function compose(name: string, programs: readonly LayerEntry[]): Promise<void> {
    const files: Files = new Map([["etc/motd", { kind: "link", target: "/dev/null" }]]);
    for (const entry of programs)
      if ("file" in entry)
        files.set(entry.path.slice(1), {
          ...{ kind: "file", source: entry.file, mode: 0o755, size: (await stat(entry.file)).size },
        });
    const tar = await packLayer(files, { uid: 0, gid: 0 });
    const response = await fetch(`${world.url}/system/images?name=${name}&base=alpine:3`, {
      ...{ method: "POST", body: await buffer(tar.open()) },
      headers: { authorization: `Basic ${Buffer.from(`admin:${password}`).toString("base64")}` },
    });
    assert.equal(response.status, 201, await response.text());
  }

  async function folder(name: string, files: Record<string, string>): Promise<void> {
    await mkdir(`${cwd}/${name}`, { recursive: true });
    for (const [file, text] of Object.entries(files)) await writeFile(`${cwd}/${name}/${file}`, text);
  }

  const call = (name: string, body?: string): Promise<Answer> =>
    world.call(`/function/${name}`, body === undefined ? {} : { method: "POST", body });
  const images = async (): Promise<{ name: string; usedBy: string[] }[]> =>
    JSON.parse((await world.api("GET", "/system/images")).text);
  const containers = () => world.ctr("containers", "list", "--quiet");

  test("a folder with a script: deployed, left alone while it is the same, updated by its content", async () => {
    await folder("count", { "count.sh": "#!/bin/sh\nwc -c\n", ".gitignore": "*.log\n", "a.log": "1" });
    const first = await nap(["up", "count", "-v"]);
    assert.match(first.stderr, /^count: count.sh: run by sh for each call.* on docker.io\/library\/alpine:3$/m);
    assert.match(first.stderr, /^count +ready .*\/function\/count \(created/m);
    assert.match(first.stderr, /^count: 1 left out by .gitignore; a .dockerignore decides instead$/m);
    assert.match(first.stderr, /^count: packed 3 files, .* sent and composed .* created, ready/m);
    assert.equal((await call("count", "12345")).text, "5\n");

    const before = await containers();
    const [made] = (await images()).filter((image) => image.usedBy.includes("count"));
    assert.match(made!.name, /^docker.io\/library\/count:up-[0-9a-f]{12}$/);
    await folder("count", { "count.sh": "#!/bin/sh\nwc -c\n" }); // another time, the same content
    const second = await nap(["up", "count", "-v", "--json"]);
    assert.match(second.stderr, /^count +ready .*\(unchanged/m);
    const steps = JSON.parse(second.stdout)[0].steps.map((s: { step: string }) => s.step);
    assert.deepEqual([steps.length, steps[1]], [2, "composed"]);
    assert.equal(await containers(), before);

    await folder("count", { "count.sh": "#!/bin/sh\nrev\n" });
    assert.match((await nap(["up", "count", "-e", "A=1"])).stderr, /^count +ready .*\(updated/m);
    assert.equal((await call("count", "12345")).text.trim(), "54321");
    // the image that it replaced has gone with it
    await eventually(images, (all) => all.filter((i) => i.name.includes("/count")).length === 1);
    assert.match((await nap(["up", "count"])).stderr, /updated/, "without the variable it is another deployment");
  });

  test("a folder with a site: nothing else is in its image", async () => {
    await folder("site", { "index.html": "<h1>one</h1>", "style.css": "h1 {}" });
    await nap(["up", "site", "--name", "www"]);
    const page = await call("www");
    assert.deepEqual([page.status, page.text, page.headers.get("last-modified")], [200, "<h1>one</h1>", null]);
    await folder("site", { "index.html": "<h1>two</h1>" });
    await nap(["up", "site", "--name", "www"]);
    assert.equal((await call("www")).text, "<h1>two</h1>");
    assert.equal((await world.call("/function/www/style.css")).headers.get("content-type"), "text/css; charset=utf-8");
  });

  test("a folder with a handler: nothing of the template's own handler is with it", async () => {
    await folder("shell", { "handler.sh": "ls function" });
    await nap(["up", "shell"]);
    assert.equal((await call("shell", "")).text, "handler.sh\n");
  });

  test("a stack of three functions from nap new, with a registry's names, which nobody asks", async () => {
    const place = `${cwd}/stack`;
    await mkdir(place);
    await nap(["new", "hello", "--lang", "bash", "--prefix", "registry.invalid/team"], place);
    await nap(["new", "pages", "--lang", "static", "--append", "stack.yaml"], place);
    await nap(["new", "upper", "--lang", "bash", "--append", "stack.yaml"], place);
    await writeFile(`${place}/upper/handler.sh`, "tr a-z A-Z\n");
    await nap(["up", "-f", "stack.yaml", "-g", world.url], place);
    assert.match((await call("hello", "you")).text, /^Hello from bash: POST \/\nyou$/);
    assert.match((await call("pages")).text, /<html/);
    assert.equal((await call("upper", "shout")).text, "SHOUT");
    const names = (await images()).filter((i) => i.usedBy.includes("hello")).map((i) => i.name);
    assert.match(names[0]!, /^registry\.invalid\/team\/hello:up-/);
    assert.equal((await nap(["up", "-g", world.url], place)).stderr.match(/unchanged/g)?.length, 3);
  });

  const refusals: [what: string, args: string[], exit: number, text: RegExp][] = [
    ["a folder that is not there", ["up", "none"], 1, /none does not exist/],
    ["a folder with nothing to run", ["up", "empty"], 1, /what is to run there is not clear.*--process/],
    ["a name that is none", ["up", "count", "--name", "A_b"], 2, /--name A_b: it must be/],
    ["a base that nobody has", ["up", "count", "--base", "127.0.0.1:1/x"], 1, /127\.0\.0\.1:1\/x/],
    ["a folder and a stack file", ["up", "count", "-f", "x.yaml"], 2, /not both/],
  ];
  for (const [what, args, exit, text] of refusals)
    test(`${what} is refused`, async () => {
      await folder("empty", {});
      const ran = await run(args);
      assert.deepEqual([ran.exit, text.test(ran.stderr)], [exit, true], ran.stderr);
    });

  test("nap dev: an edit is answered by the next call, failures do not end it, logs are shown, Ctrl-C ends it", async () => {
    await folder("live", { "handler.sh": "echo said >&2; echo one" });
    const ctrlC = new AbortController();
    let written = "";
    const onOutput = (text: string) => {
      written += text;
    };
    const dev = run(["dev", "live", "--remove"], { signal: ctrlC.signal, onOutput });
    const answers = (text: string) =>
      eventually(
        () => call("live", ""),
        (a) => a.text === text,
      );
    await answers("one\n");
    await eventually(
      async () => written,
      (text) => /^live \| .*said$/m.test(text),
    );
    await folder("live", { "handler.sh": "echo two" });
    await answers("two\n");
    // as editors write
    await writeFile(`${cwd}/live/new~`, "echo three");
    await rename(`${cwd}/live/new~`, `${cwd}/live/handler.sh`);
    await answers("three\n");
    await mkdir(`${cwd}/live/lib`);
    await writeFile(`${cwd}/live/lib/text`, "four");
    await folder("live", { "handler.sh": "cat function/lib/text" });
    await answers("four");
    await writeFile(`${cwd}/live/lib/text`, "five");
    await answers("five");
    await symlink("/nowhere", `${cwd}/live/link`);
    await eventually(
      async () => written,
      (text) => /failed .*live\/link is a link to what is not there/.test(text),
    );
    await folder("live", { "handler.sh": "echo six" });
    await rm(`${cwd}/live/link`);
    await answers("six\n");
    ctrlC.abort();
    const ended = await dev;
    assert.deepEqual([ended.exit, /live removed/.test(ended.stderr)], [0, true], ended.stderr);
    assert.equal((await call("live")).status, 404);
  });
});
