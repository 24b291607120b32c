/** From `nap new` to answered calls with a real builder: buildah, with storage of its own and a registry on loopback. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { baseLayer, type LayerEntry, librariesOf, writeOciArchive } from "../../scripts/oci-image.ts";
import { openRegistry, type Registry } from "../support/registry.ts";
import { openWorld, type World } from "../support/world.ts";

const exec = promisify(execFile);
const up = new AsyncDisposableStack();
let world: World;
let registry: Registry;
let cwd: string;
let env: NodeJS.ProcessEnv;

/** busybox with bash: what the images of the functions begin with. */
async function baseImage(): Promise<string> {
  const bash: LayerEntry[] = [
    { path: "/bin/bash", file: "/bin/bash", mode: 0o755 },
    ...(await librariesOf("/bin/bash")),
  ];
  const file = `${world.dir}/base.tar`;
  await writeOciArchive(file, { ref: "docker.io/library/base:1", layers: [[...(await baseLayer()), ...bash]] });
  return registry.push(file, "base:1");
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

    const built = JSON.parse(await nap(["build", "--build-arg", `BASE_IMAGE=${env.BASE_IMAGE}`, "--json"]));
    assert.deepEqual(
      built.map((b: { name: string; status: string }) => [b.name, b.status]),
      [
        ["script", "built"],
        ["site", "built"],
        ["own", "built"],
      ],
    );
    await nap(["push", "--to-gateway"]);
    await nap(["deploy"]);

    const post = { method: "POST", body: "some body" };
    assert.equal((await world.call("/function/script/x", post)).text, "Hello from bash: POST /x\nsome body");
    assert.equal((await world.call("/function/own/y", post)).text, "Hello from a Dockerfile: POST /y\nsome body");
    const about = await world.call("/function/site/about.html");
    assert.deepEqual([about.status, about.text], [200, "<p>about</p>\n"]);
    assert.match((await world.call("/function/site/")).text, /<h1>Hello<\/h1>/);
    assert.equal((await world.call("/function/site/../README.md")).status, 404);
  });

  test("a template of a git repository is fetched, built unchanged, pushed to a registry and deployed from there", async () => {
    const repository = `${world.dir}/templates`;
    await mkdir(`${repository}/template/shout/function`, { recursive: true });
    await writeFile(`${repository}/template/shout/template.yml`, "language: sh\nfprocess: sh ./main.sh\n");
    await writeFile(`${repository}/template/shout/main.sh`, ". ./function/handler.sh\nhandle\n");
    await writeFile(`${repository}/template/shout/function/handler.sh`, "handle() { cat; }\n");
    await writeFile(
      `${repository}/template/shout/Dockerfile`,
      `ARG BASE\nFROM \${BASE}\nARG ADDITIONAL_PACKAGE\nRUN mkdir -p /home/app\nWORKDIR /home/app\nCOPY . .\nRUN chown -R app:app /home/app\nUSER app\nENV fprocess="sh ./main.sh"\nCMD ["sh"]\n`,
    );
    const git = (...args: string[]) =>
      exec("git", ["-C", repository, "-c", "user.name=t", "-c", "user.email=t@t", ...args]);
    await git("init", "--quiet");
    await git("add", ".");
    await git("commit", "--quiet", "--message", "templates");

    await nap(["template", "pull", repository]);
    await nap(["new", "shouting", "--lang", "shout", "--prefix", `${registry.host}/team`, "-f", "shout.yaml"]);
    await writeFile(`${cwd}/shouting/handler.sh`, "handle() { tr a-z A-Z; }\n");
    await nap(["build", "-f", "shout.yaml", "--build-arg", `BASE=${env.BASE_IMAGE}`]);
    await nap(["push", "-f", "shout.yaml"]);
    await nap(["deploy", "-f", "shout.yaml"]);
    const answer = await world.call("/function/shouting", { method: "POST", body: "quiet" });
    assert.deepEqual([answer.status, answer.text], [200, "QUIET"]);
  });
});
