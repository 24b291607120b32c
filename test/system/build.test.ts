/** From `nap new` to answered calls with a real builder: buildah, with storage of its own and a registry on loopback. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { startChild, waitReady } from "../../scripts/child.ts";
import { baseLayer, type LayerEntry, librariesOf, writeOciArchive } from "../../scripts/oci-image.ts";
import { freePort } from "../support/free-port.ts";
import { openRegistry, type Registry } from "../support/registry.ts";
import { commitFiles } from "../support/template-repository.ts";
import { openWorld, type World } from "../support/world.ts";

const exec = promisify(execFile);
const up = new AsyncDisposableStack();
let world: World;
let registry: Registry;
let cwd: string;
let env: NodeJS.ProcessEnv;

async function imageOfLayers(repoTag: string, layers: LayerEntry[][]): Promise<string> {
  const file = `${world.dir}/image.tar`;
  await writeOciArchive(file, { ref: `docker.io/library/${repoTag}`, layers });
  return registry.push(file, repoTag);
}

/** busybox with bash: what the images of the functions begin with. */
async function baseImage(): Promise<string> {
  const bash: LayerEntry = { path: "/bin/bash", file: "/bin/bash", mode: 0o755 };
  return imageOfLayers("base:1", [[...(await baseLayer()), bash, ...(await librariesOf("/bin/bash"))]]);
}

before(async () => {
  world = up.use(await openWorld());
  registry = up.use(await openRegistry({ dir: `${world.dir}/registry` }));
  await world.start({ "images.pull_policy": "IfNotPresent", "functions.grace": "100ms" });
  cwd = `${world.dir}/project`;
  await mkdir(cwd);
  // a storage and trusted registries of the test's own; chroot asks nothing of the kernel
  const settings = `${world.dir}/buildah`;
  await mkdir(settings);
  await writeFile(
    `${settings}/storage.conf`,
    `[storage]\ndriver = "overlay"\nrunroot = "${settings}/run"\ngraphroot = "${settings}/images"\n`,
  );
  await writeFile(`${settings}/registries.conf`, `[[registry]]\nlocation = "${registry.host}"\ninsecure = true\n`);
  env = {
    ...process.env,
    HOME: world.dir,
    TMPDIR: world.dir,
    OPENFAAS_URL: world.url,
    NAP_BUILDER: "buildah",
    BUILDAH_ISOLATION: "chroot",
    CONTAINERS_STORAGE_CONF: `${settings}/storage.conf`,
    CONTAINERS_REGISTRIES_CONF: `${settings}/registries.conf`,
    BASE_IMAGE: await baseImage(),
  };
  const password = await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8");
  await nap(["login", "--password-stdin"], password);
});
after(() => up.disposeAsync());

async function nap(args: string[], input = ""): Promise<string> {
  const entry = `${import.meta.dirname}/../../src/nap.ts`;
  const running = exec(process.execPath, [entry, ...args], { cwd, env });
  running.child.stdin!.end(input);
  const { stdout } = await running.catch((e) => {
    throw new Error(`nap ${args.join(" ")}: ${e.stdout}${e.stderr}`);
  });
  return stdout;
}

suite("nap and buildah", () => {
  test("three functions are made, built, brought to napd and answer", async () => {
    await nap(["new", "script", "--lang", "bash"]);
    await nap(["new", "site", "--lang", "static", "--append", "stack.yaml"]);
    await nap(["new", "own", "--lang", "dockerfile", "--append", "stack.yaml"]);
    await writeFile(`${cwd}/site/public/about.html`, "<p>about</p>\n");

    // one with the watchdog that nap puts into an image, the others with napd's, because it is large
    const base = `BASE_IMAGE=${env.BASE_IMAGE}`;
    const nothing = `WATCHDOG_IMAGE=${await imageOfLayers("nothing:1", [[{ path: "/opt/napd/watchdog", dir: true }]])}`;
    const built = [
      ...JSON.parse(await nap(["build", "--filter", "script", "-b", base, "--json"])),
      ...JSON.parse(await nap(["build", "--regex", "site|own", "-b", base, "-b", nothing, "--json"])),
    ];
    assert.deepEqual(
      built.map((b: { name: string; status: string }) => `${b.name} ${b.status}`),
      ["script built", "site built", "own built"],
    );
    await nap(["push", "--to-gateway"]);
    await nap(["deploy", "--filter", "script"]);
    await nap(["deploy", "--regex", "site|own", "--annotation", "napd.watchdog=inject"]);

    const post = { method: "POST", body: "some body" };
    assert.equal((await world.call("/function/script/x", post)).text, "Hello from bash: POST /x\nsome body");
    assert.equal((await world.call("/function/own/y", post)).text, "Hello from a Dockerfile: POST /y\nsome body");
    const about = await world.call("/function/site/about.html");
    assert.deepEqual([about.status, about.text], [200, "<p>about</p>\n"]);
    assert.match((await world.call("/function/site/")).text, /<h1>Hello<\/h1>/);
    assert.equal((await world.call("/function/site/../README.md")).status, 404);
  });

  test("one of them runs without a gateway, until Ctrl-C", async () => {
    const port = await freePort();
    const logFile = `${world.dir}/local-run.log`;
    const entry = `${import.meta.dirname}/../../src/nap.ts`;
    const args = ["-C", cwd, process.execPath, entry, "local-run", "script", "--build=false", "-p", String(port)];
    await using running = await startChild("env", args, { env, logFile });
    const call = () => fetch(`http://127.0.0.1:${port}/x`, { method: "POST", body: "hi" }).then((r) => r.text());
    const isUp = () =>
      call().then(
        () => true,
        () => false,
      );
    await waitReady(running, isUp, { what: "the function", timeoutMs: 60_000, logFile });
    assert.equal(await call(), "Hello from bash: POST /x\nhi");
    process.kill(running.pid, "SIGINT");
    assert.deepEqual(await running.exited, { code: 0, signal: null }, await readFile(logFile, "utf8"));
    assert.equal((await exec("buildah", ["containers", "--quiet"], { env })).stdout, "");
    await assert.rejects(call());
  });

  test("a template of a git repository is fetched, built unchanged, pushed to a registry and deployed from there", async () => {
    const repository = `${world.dir}/templates`;
    await mkdir(repository);
    await commitFiles(repository, {
      "template/shout/template.yml": "language: sh\nfprocess: sh ./main.sh\n",
      "template/shout/main.sh": ". ./function/handler.sh\nhandle\n",
      "template/shout/function/handler.sh": "handle() { cat; }\n",
      "template/shout/Dockerfile": [
        "ARG BASE",
        "FROM $BASE",
        "ARG ADDITIONAL_PACKAGE",
        "RUN mkdir -p /home/app",
        "WORKDIR /home/app",
        "COPY . .",
        "RUN chown -R app:app /home/app",
        "USER app",
        'ENV fprocess="sh ./main.sh"',
        'CMD ["sh"]',
      ].join("\n"),
    });

    await nap(["template", "pull", repository]);
    await nap(["new", "shouting", "--lang", "shout", "--prefix", `${registry.host}/team`, "-f", "shout.yaml"]);
    await writeFile(`${cwd}/shouting/handler.sh`, "handle() { tr a-z A-Z; }\n");
    await nap(["build", "-f", "shout.yaml", "--build-arg", `BASE=${env.BASE_IMAGE}`]);
    await nap(["push", "-f", "shout.yaml"]);
    await nap(["deploy", "-f", "shout.yaml"]);
    const answer = await world.call("/function/shouting", { method: "POST", body: "quiet" });
    assert.deepEqual([answer.status, answer.text], [200, "QUIET"]);
  });

  test("nap up builds what needs it: for its registry where it names one, else for napd; and again after an edit", async () => {
    const base = ["--build-arg", `BASE=${env.BASE_IMAGE}`];
    await writeFile(`${cwd}/shouting/handler.sh`, "handle() { rev; }\n");
    await nap(["up", "-f", "shout.yaml", ...base]);
    const call = async (name: string) =>
      (await world.call(`/function/${name}`, { method: "POST", body: "quiet" })).text;
    assert.equal((await call("shouting")).trim(), "teiuq");

    await mkdir(`${cwd}/plain`);
    await writeFile(`${cwd}/plain/Dockerfile`, "ARG BASE\nFROM $BASE\nCOPY text /text\n");
    for (const text of ["one\n", "two\n"]) {
      await writeFile(`${cwd}/plain/text`, text);
      const [done] = JSON.parse(await nap(["up", "plain", "--fprocess", "cat /text", "--json", ...base]));
      assert.deepEqual(
        done.steps.map((s: { step: string }) => s.step.replace("updated", "created")),
        ["built by buildah", "sent", "created"],
      );
      assert.equal(await call("plain"), text);
    }
  });
});
