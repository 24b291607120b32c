/** Commands that make images of functions, against builders that only write down what they are asked. */
import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite, test } from "node:test";
import { openRecordingServer } from "../../support/nap.ts";
import { bench, project, stack } from "../../support/nap-project.ts";
import { commitFiles } from "../../support/template-repository.ts";

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
