/** Commands that make functions and images, against builders that only write down what they are asked. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite, test } from "node:test";
import { type FakeBuilder, fakeBuilder } from "../../support/fake-builder.ts";
import { nap, openPlace, openRecordingServer, type Place, type Ran, type RunOptions } from "../../support/nap.ts";
import { commitFiles } from "../../support/template-repository.ts";
import { tmpDir } from "../../support/tmp.ts";

const stack = `# ours
provider:
  name: openfaas
functions:
  one:
    lang: zz
    handler: ./one
    image: acme/one:1
    secrets: [token]
    limits: {memory: 128Mi, cpu: 500m}
    environment: {Y: "2"}
    readonly_root_filesystem: true
    build_secrets: {pip: ./pip.conf}
  two: {lang: zz, handler: ./two, image: acme/two}
`;
const project = {
  "stack.yaml": stack,
  "one/h": "",
  "two/h": "",
  "pip.conf": "",
  ".secrets/token": "",
  "template/zz/template.yml": "language: zz\nfprocess: ./handler\nmount_ssh: false\n",
  "template/zz/Dockerfile": "FROM scratch\n",
};

interface Bench {
  place: Place;
  builder: FakeBuilder;
  run(args: string[], options?: RunOptions): Promise<Ran>;
  /** What the builders were asked to do. */
  asked(): Promise<string[]>;
}

async function bench(
  files: Record<string, string>,
  work: (bench: Bench) => Promise<void>,
  programs: string[] = ["docker"],
): Promise<void> {
  await using dir = await tmpDir();
  const place = await openPlace(dir.path, files);
  const builder = await fakeBuilder(dir.path, programs);
  await work({
    place,
    builder,
    run: (args, options = {}) => nap(place, args, { ...options, env: { ...builder.env, ...options.env } }),
    asked: async () =>
      (await builder.calls()).map((c) => c.argv.join(" ").replaceAll(`${place.cwd}/`, "").replaceAll(place.cwd, ".")),
  });
}

suite("nap build", () => {
  for (const [name, programs, broken, expected] of [
    ["buildah comes first", ["docker", "buildah"], "", "buildah"],
    ["docker without an engine is none", ["docker", "nerdctl"], "docker", "nerdctl"],
    ["a buildah without storage is none", ["docker", "buildah"], "buildah", "docker"],
  ] as const)
    test(name, async () => {
      await bench(
        project,
        async ({ run, asked }) => {
          const ran = await run(["build", "--filter", "two"], { env: { FAKE_BROKEN: broken } });
          assert.equal(ran.exit, 0, ran.stderr);
          assert.match((await asked()).at(-1)!, new RegExp(`^${expected} build `));
        },
        [...programs],
      );
    });

  test("without a builder it says what to do", async () => {
    await bench(project, async ({ run }) => {
      const ran = await run(["build"], { env: { FAKE_BROKEN: "docker" } });
      assert.equal(ran.exit, 1);
      assert.match(ran.stderr, /docker does not work: cannot reach its engine; install buildah .*nap up/);
    });
    await bench(
      project,
      async ({ run }) => {
        assert.match((await run(["build"])).stderr, /there is none of buildah, docker, nerdctl, podman here/);
        assert.match((await run(["build", "--builder", "kaniko"])).stderr, /builder kaniko is not installed/);
      },
      [],
    );
  });

  test("docker and buildah are told the same, each in its way", async () => {
    const args = ["build", "-b", "B=2", "-b", "A=1", "--build-label", "l=x", "--filter", "one"];
    const flags = "--build-arg A=1 --build-arg B=2 --label l=x";
    await bench(project, async ({ run, asked, builder }) => {
      assert.equal((await run([...args, "--builder", "docker"])).exit, 0);
      assert.deepEqual(await asked(), [`docker build ${flags} --tag acme/one:1 . --secret id=pip,src=pip.conf`]);
      assert.equal((await builder.calls())[0]!.DOCKER_BUILDKIT, "1");
    });
    await bench(
      project,
      async ({ run, asked }) => {
        assert.equal((await run([...args, "--builder", "buildah"])).exit, 0);
        assert.equal((await run([...args, "--builder", "buildah", "--no-cache", "--pull"])).exit, 0);
        const [cached, fresh] = await asked();
        const rest = "--secret id=pip,src=pip.conf --tag docker.io/acme/one:1 .";
        assert.equal(cached, `buildah build --layers --force-rm --pull=false ${flags} ${rest}`);
        assert.equal(fresh, `buildah build --force-rm --no-cache ${flags} --pull ${rest}`);
      },
      ["buildah"],
    );
  });

  test("one that fails keeps no other from being built, and says why", async () => {
    await bench({ ...project, "template/bad/template.yml": "" }, async ({ run, place, asked }) => {
      await writeFile(join(place.cwd, "stack.yaml"), stack.replace("lang: zz\n", "lang: bad\n"));
      const ran = await run(["build", "--builder", "docker", "--json"]);
      assert.equal(ran.exit, 1);
      const [one, two] = JSON.parse(ran.stdout);
      assert.deepEqual([one.name, one.status, two.name, two.status], ["one", "failed", "two", "built"]);
      assert.match(one.error, /no Dockerfile/);
      assert.match(ran.stderr, /1 of 2 not built: one/);
      assert.equal((await asked()).length, 1);
    });
    await bench(project, async ({ run }) => {
      const ran = await run(["build", "--builder", "docker"], { env: { DOCKER_FAIL: "build" } });
      assert.equal(ran.exit, 1);
      assert.match(ran.stderr, /docker build ended with 3\n +step 3 went wrong/);
    });
  });

  test("what a builder says is shown on a terminal, without moving its cursor", async () => {
    await bench(project, async ({ run, place }) => {
      const bin = join(place.home, "bin/docker");
      await writeFile(bin, (await readFile(bin, "utf8")).replace("exit 0", "printf 'step\\033[2J one\\n'"));
      const live = await run(["build", "--builder", "docker"], { terminal: 80 });
      assert.ok(live.stderr.includes("step\\x1b[2J one"), live.stderr);
      assert.ok(live.stderr.includes("\x1b[32mbuilt\x1b[39m acme/one:1 "), live.stderr);
      const plain = await run(["build", "--builder", "docker", "--verbose"], { terminal: 80, env: { NO_COLOR: "1" } });
      assert.match(plain.stderr, /^one \| step\\x1b\[2J one$/m);
      assert.match(plain.stderr, /^two {2}built acme\/two:latest /m);
      const quiet = await run(["build", "--builder", "docker", "--quiet"], { terminal: 80 });
      assert.equal(quiet.stderr + quiet.stdout, "");
    });
  });

  test("a Dockerfile that takes the watchdog by name is told where it is", async () => {
    const files = { ...project, "template/zz/Dockerfile": "ARG WATCHDOG_IMAGE=x\nFROM scratch\n" };
    const build = ["build", "--builder", "docker", "--filter", "two"];
    await bench(files, async ({ run, asked }) => {
      await run(build, { env: { NAP_WATCHDOG_IMAGE: "host/wd:1" } });
      await run([...build, "-b", "WATCHDOG_IMAGE=mine"], { env: { NAP_WATCHDOG_IMAGE: "host/wd:1" } });
      assert.deepEqual(await asked(), [
        "docker build --build-arg WATCHDOG_IMAGE=host/wd:1 --tag acme/two:latest .",
        "docker build --build-arg WATCHDOG_IMAGE=mine --tag acme/two:latest .",
      ]);
    });
  });

  test("--tag says what state the code is in", async () => {
    await bench(project, async ({ run, place, builder }) => {
      const images = async (...args: string[]) => {
        const ran = await run(["build", "--shrinkwrap", "--json", ...args]);
        assert.equal(ran.exit, 0, ran.stderr);
        return JSON.parse(ran.stdout).map((b: { image: string }) => b.image);
      };
      assert.match((await run(["build", "--shrinkwrap", "--tag", "sha"])).stderr, /git rev-parse/);
      const sha = (await commitFiles(place.cwd, { ".gitignore": "build\n" })).slice(0, 7);
      assert.deepEqual(await images("--tag", "sha"), [`acme/one:1-${sha}`, `acme/two:latest-${sha}`]);
      assert.deepEqual(await images("--tag", "branch"), [`acme/one:1-main-${sha}`, `acme/two:latest-main-${sha}`]);
      assert.deepEqual(await images("--tag", "describe"), [`acme/one:1-${sha}`, `acme/two:latest-${sha}`]);
      const [before] = await images("--tag", "digest");
      // MD5 of the hex MD5 of one empty file
      assert.equal(before, "acme/one:74be16979710d4c4e7c6647856088456");
      await writeFile(join(place.cwd, "one/h"), "changed");
      const [changed, same] = await images("--tag", "digest");
      assert.notEqual(changed, before);
      assert.equal(same, "acme/two:74be16979710d4c4e7c6647856088456");
      assert.deepEqual(await builder.calls(), []);
    });
  });
});

suite("nap push and publish", () => {
  test("buildah pushes under full names", async () => {
    await bench(
      project,
      async ({ run, asked }) => {
        assert.equal((await run(["push", "--builder", "buildah", "--parallel", "1"])).exit, 0);
        assert.deepEqual(await asked(), [
          "buildah push docker.io/acme/one:1 docker://docker.io/acme/one:1",
          "buildah push docker.io/acme/two:latest docker://docker.io/acme/two:latest",
        ]);
      },
      ["buildah"],
    );
  });

  test("--to-gateway saves images and sends them", async () => {
    await using server = await openRecordingServer([
      { method: "POST", path: "/system/images", status: 201, body: [], times: 1 },
      { method: "POST", path: "/system/images", status: 507, body: "the disk is full" },
    ]);
    await bench(project, async ({ run, asked, place }) => {
      const bin = join(place.home, "bin/docker");
      // it saves what an archive would be
      await writeFile(bin, (await readFile(bin, "utf8")).replace("exit 0", 'echo archive >"$3"'));
      const ran = await run(["push", "--to-gateway", "--builder", "docker", "--parallel", "1", "-g", server.url]);
      assert.equal(ran.exit, 1);
      assert.match(ran.stderr, /one +sent acme\/one:1 to /);
      assert.match(ran.stderr, /two +failed the disk is full \(status 507\)/);
      const [first] = server.seen();
      assert.equal(first!.query, "name=docker.io%2Facme%2Fone%3A1");
      assert.equal(first!.body, "archive\n");
      assert.match((await asked())[0]!, /^docker save --output \S+\/image.tar acme\/one:1$/);
      const left = (await readdir(place.home)).filter((name) => name.startsWith("nap-"));
      assert.deepEqual(left, []);
    });
  });

  test("buildah publishes a list of images under every tag", async () => {
    await bench(
      project,
      async ({ run, asked }) => {
        const args = ["--platforms", "linux/amd64,linux/arm64", "--extra-tag", "v1", "--filter", "two"];
        assert.equal((await run(["publish", "--builder", "buildah", ...args])).exit, 0);
        const list = "localhost/nap-publish/acme/two:latest";
        assert.deepEqual(await asked(), [
          `buildah manifest rm ${list}`,
          `buildah build --platform=linux/amd64,linux/arm64 --layers --force-rm --pull=false --manifest ${list} .`,
          `buildah manifest push --all ${list} docker://docker.io/acme/two:latest`,
          `buildah manifest push --all ${list} docker://docker.io/acme/two:v1`,
        ]);
      },
      ["buildah"],
    );
  });

  test("a platform, a watchdog or a flag that cannot be is told", async () => {
    const files = { ...project, "template/zz/Dockerfile": "ARG WATCHDOG_IMAGE\nFROM scratch\n" };
    await bench(
      files,
      async ({ run }) => {
        const publish = ["publish", "--builder", "buildah"];
        assert.equal((await run([...publish, "--platforms", "amd64"])).exit, 2);
        assert.equal((await run([...publish, "--reset-qemu"])).exit, 2);
        assert.match((await run([...publish, "--platforms", "linux/s390x"])).stderr, /NAP_WATCHDOG_IMAGE/);
      },
      ["buildah"],
    );
  });
});

suite("nap local-run", () => {
  test("runs the image as it would run on a gateway, after an earlier one", async () => {
    await bench(project, async ({ run, asked }) => {
      const args = ["local-run", "one", "--builder", "docker", "-p", "8099", "-e", "X=a b", "--build=false"];
      assert.equal((await run(args)).exit, 0);
      const environment =
        "-e=Y=2 -e=X=a b -e=OPENFAAS_NAME=one -e=OPENFAAS_NAMESPACE=openfaas-fn -e=jwt_auth_local=true";
      const limits = "--read-only --memory=134217728 --cpus=0.5 --volume=.secrets:/var/openfaas/secrets:ro";
      const line = `run --name one --rm -i -p=8099:8080 ${environment} -e=fprocess=./handler ${limits} acme/one:1`;
      assert.deepEqual(await asked(), ["docker rm -f one", `docker ${line}`]);
      const printed = (await run([...args, "--print"])).stdout;
      assert.match(printed, /^docker run --name one .*'-e=X=a b' .*acme\/one:1\n$/);
      assert.equal((await asked()).length, 2);
    });
  });

  test("runs it with buildah on this machine's network, and leaves no container", async () => {
    await bench(
      project,
      async ({ run, asked, place }) => {
        const bin = join(place.home, "bin/buildah");
        const inspected = { OCIv1: { config: { Entrypoint: ["/bin/wd"], Cmd: ["a b"] } } };
        await writeFile(
          bin,
          `${(await readFile(bin, "utf8")).replace("exit 0", `[ "$1" = inspect ] && echo '${JSON.stringify(inspected)}'\nexit 0`)}`,
        );
        const ran = await run(["local-run", "two", "--builder", "buildah", "--build=false", "-p", "8099"]);
        assert.equal(ran.exit, 0, ran.stderr);
        const environment = "--env=OPENFAAS_NAME=two --env=OPENFAAS_NAMESPACE=openfaas-fn --env=jwt_auth_local=true";
        const own = "--env=fprocess=./handler --env=port=8099 --env=metrics_port=0";
        assert.deepEqual(await asked(), [
          "buildah inspect --type image docker.io/acme/two:latest",
          "buildah rm nap-two",
          "buildah from --pull=false --name nap-two docker.io/acme/two:latest",
          `buildah run --network=host ${environment} ${own} nap-two -- /bin/wd a b`,
          "buildah rm nap-two",
        ]);
        const network = await run(["local-run", "two", "--builder", "buildah", "--network", "x"]);
        assert.deepEqual([network.exit, /own network only/.test(network.stderr)], [2, true]);
      },
      ["buildah"],
    );
  });

  test("says what is missing", async () => {
    await bench(
      project,
      async ({ run }) => {
        assert.match((await run(["local-run"])).stderr, /say which function: one, two/);
        assert.match((await run(["local-run", "three"])).stderr, /no function three/);
        assert.match((await run(["local-run", "two"])).stderr, /there is none of docker, .*; .*nap up/);
      },
      [],
    );
    const { ".secrets/token": _, ...without } = project;
    await bench(without, async ({ run }) => {
      assert.match((await run(["local-run", "one", "--builder", "docker", "--print"])).stderr, /.secrets\/token/);
    });
  });
});

suite("nap new", () => {
  test("makes a function of a template that comes with nap, which others find too", async () => {
    await bench({}, async ({ run, place }) => {
      const ran = await run(["new", "web", "--lang", "node", "--prefix", "host:5000/me/", "--json"]);
      assert.deepEqual(JSON.parse(ran.stdout), {
        name: "web",
        lang: "node",
        handler: "web",
        image: "host:5000/me/web:latest",
        stack: "stack.yaml",
      });
      assert.ok((await readdir(join(place.cwd, "web"))).includes("handler.js"));
      assert.ok((await readdir(join(place.cwd, "template/node"))).includes("Dockerfile"));
      assert.equal((await stat(join(place.cwd, "stack.yaml"))).mode & 0o777, 0o600);
      assert.equal(await readFile(join(place.cwd, ".gitignore"), "utf8"), "template\nbuild\n.secrets\n");
    });
  });

  test("leaves what is written in a stack file and .gitignore as it is", async () => {
    const text = `# mine\nfunctions:\n    # first\n    a: {image: x}\n\n# the end\nprovider: {name: openfaas} # p\n`;
    await bench({ "s.yml": text, ".gitignore": "/build/\ntemplate" }, async ({ run, place }) => {
      assert.equal((await run(["new", "b", "--lang", "bash", "-a", "s.yml", "--cpu-limit", "100m"])).exit, 0);
      assert.equal(
        await readFile(join(place.cwd, "s.yml"), "utf8"),
        text.replace(
          "{image: x}\n\n",
          `{image: x}\n\n    b:\n        lang: bash\n        handler: ./b\n        image: b:latest\n        limits:\n            cpu: 100m\n\n`,
        ),
      );
      assert.equal(await readFile(join(place.cwd, ".gitignore"), "utf8"), "/build/\ntemplate\n.secrets\n");
      const again = await run(["new", "c", "--lang", "bash", "-a", "s.yml"]);
      assert.equal(again.exit, 0, again.stderr);
    });
  });

  for (const [what, args, message, files] of [
    ["a name with capitals", ["new", "Web", "--lang", "bash"], /no name of a function/, {}],
    ["a name that is a path", ["new", "../x", "--lang", "bash"], /no name of a function/, {}],
    ["a folder that is there", ["new", "a", "--lang", "bash"], /a is there already/, { "a/x": "" }],
    ["a stack file that is there", ["new", "b", "--lang", "bash"], /--append stack.yaml/, { "stack.yaml": "" }],
    ["the older stack file", ["new", "b", "--lang", "bash"], /--append stack.yml/, { "stack.yml": "" }],
    [
      "a function that is in the file",
      ["new", "a", "--lang", "bash", "-a", "s.yml"],
      /a function a already/,
      { "s.yml": "functions:\n  a: {}\n" },
    ],
    [
      "a file that is no stack file",
      ["new", "a", "--lang", "bash", "-a", "s.yml"],
      /no stack file/,
      { "s.yml": "- 1\n" },
    ],
    [
      "functions in one line",
      ["new", "b", "--lang", "bash", "-a", "s.yml"],
      /must have a line/,
      { "s.yml": "functions: {a: {}}\n" },
    ],
    ["a folder elsewhere", ["new", "b", "--lang", "bash", "--handler", "../b"], /below this one/, {}],
    ["a prefix that is none", ["new", "b", "--lang", "bash", "--prefix", "UP/CASE"], /capital/, {}],
    ["an append and a new file", ["new", "b", "--lang", "bash", "-a", "x", "-f", "y"], /not both/, {}],
  ] as [string, string[], RegExp, Record<string, string>][])
    test(`refuses ${what}, and makes nothing`, async () => {
      await bench(files, async ({ run, place }) => {
        const ran = await run(args);
        assert.notEqual(ran.exit, 0);
        assert.match(ran.stderr, message);
        const there = await readdir(place.cwd);
        assert.deepEqual(there.sort(), [...new Set(Object.keys(files).map((f) => f.split("/")[0]!))].sort());
      });
    });
});

suite("nap template", () => {
  const repository = { "template/zz/template.yml": "language: zz\n", "template/yy/template.yml": "language: yy\n" };
  const languageOf = async (place: Place, name: string) =>
    /language: (.*)/.exec(await readFile(join(place.cwd, "template", name, "template.yml"), "utf8"))![1];

  test("pulls a branch, a commit or a folder, whole, and notes where it is from", async () => {
    await bench({}, async ({ run, place }) => {
      const dir = join(place.home, "repository");
      await mkdir(dir);
      const first = await commitFiles(dir, repository);
      await commitFiles(dir, { "template/zz/template.yml": "language: second\n" });
      const pull = async (...args: string[]) => {
        const ran = await run(["template", "pull", ...args]);
        assert.equal(ran.exit, 0, ran.stderr);
        return ran;
      };
      assert.equal((await pull(dir)).stdout, "template/yy written\ntemplate/zz written\n");
      assert.equal(await languageOf(place, "zz"), "second");
      assert.match((await pull(`${dir}#sha-${first.slice(0, 8)}`, "--overwrite=false")).stderr, /zz is there already/);
      assert.equal(await languageOf(place, "zz"), "second");
      await pull(`${dir}#sha-${first.slice(0, 8)}`);
      assert.equal(await languageOf(place, "zz"), "zz");
      const meta = JSON.parse(await readFile(join(place.cwd, "template/zz/meta.json"), "utf8"));
      assert.deepEqual([meta.repository, meta.ref_name, meta.sha], [dir, `sha-${first.slice(0, 8)}`, first]);
      await pull(`${dir}#main`);
      assert.equal(await languageOf(place, "zz"), "second");
      assert.deepEqual((await readdir(join(place.cwd, "template"))).sort(), ["yy", "zz"]);

      const plain = join(place.home, "plain/template/pp");
      await mkdir(plain, { recursive: true });
      await writeFile(join(plain, "template.yml"), "language: pp\n");
      await pull("../plain");
      assert.equal(await languageOf(place, "pp"), "pp");
      await symlink("/etc/passwd", join(dir, "template/yy/secret"));
      await commitFiles(dir, {});
      for (const [source, why] of [
        [dir, /secret is a link to \/etc\/passwd, outside/],
        [`${dir}#nothing`, /cannot be fetched/],
        ["../plain#main", /no git repository/],
        [`${dir}#--upload-pack=x`, /behind # stands/],
        ["--upload-pack=x", /unknown option/],
      ] as const) {
        const ran = await run(["template", "pull", source]);
        assert.notEqual(ran.exit, 0, source);
        assert.match(ran.stderr, why);
      }
      assert.deepEqual((await readdir(join(place.cwd, "template"))).sort(), ["pp", "yy", "zz"]);
      assert.ok(!(await readdir(join(place.cwd, "template/yy"))).includes("secret"));
    });
  });

  test("what is missing at build comes from where the stack file says, or from the store", async () => {
    await bench({ "stack.yaml": "", "one/h": "" }, async ({ run, place }) => {
      const dir = join(place.home, "repository");
      await mkdir(dir);
      await commitFiles(dir, { "template/node/template.yml": "language: theirs\n", ...repository });
      await using server = await openRecordingServer([
        { status: 200, body: [{ template: "zz", source: "me", repo: dir, platform: "x86_64", official: "false" }] },
      ]);
      const env = { OPENFAAS_TEMPLATE_STORE_URL: `${server.url}/templates.json` };
      const write = (lang: string, sources: string) =>
        writeFile(
          join(place.cwd, "stack.yaml"),
          `provider: {name: openfaas}\nfunctions:\n  one: {lang: "${lang}", handler: ./one, image: a/one}\n${sources}`,
        );
      const build = async (...args: string[]) => run(["build", "--shrinkwrap", ...args], { env });

      // of a name that nap has too
      await write("node", `configuration: {templates: [{name: node, source: "${dir}"}]}\n`);
      assert.equal((await build("--disable-stack-pull")).exit, 0);
      assert.ok((await readdir(join(place.cwd, "build/one"))).includes("index.mjs"));
      assert.equal((await build()).exit, 0);
      assert.equal(await languageOf(place, "node"), "theirs");
      assert.equal(server.seen().length, 0);

      await write("zz@main", "");
      const ran = await build();
      assert.equal(ran.exit, 0, ran.stderr);
      assert.equal(server.seen().length, 1);
      assert.equal(await languageOf(place, "zz@main"), "zz");

      await write("cobol", "");
      assert.match((await build()).stderr, /no template cobol, neither here nor in the store/);
    });
  });

  test("those of nap are listed and copied without any store", async () => {
    await bench({}, async ({ run, place }) => {
      const env = { OPENFAAS_TEMPLATE_STORE_URL: "http://127.0.0.1:1/" };
      const names = JSON.parse((await run(["template", "list", "--json"])).stdout).map((t: { name: string }) => t.name);
      assert.deepEqual(names, ["bash", "dockerfile", "node", "python3", "static", "typescript"]);
      assert.equal((await run(["template", "store", "pull", "python3"], { env })).stdout, "template/python3 written\n");
      assert.ok((await readdir(join(place.cwd, "template/python3"))).includes("index.py"));
      assert.equal((await run(["template", "store", "list"], { env })).exit, 1);
      assert.match((await run(["template", "store", "describe", "bash"], { env })).stdout, /^Source: +nap$/m);
    });
  });
});
