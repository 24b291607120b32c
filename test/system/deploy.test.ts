/** The main job: an image in a registry becomes a function that answers, is updated, and goes without a trace. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { baseLayer, librariesOf } from "../../scripts/oci-image.ts";
import { watchdogImage, webImage } from "../support/images.ts";
import { openRegistry, type Registry } from "../support/registry.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const run = promisify(execFile);

suite("deploying", () => {
  const up = new AsyncDisposableStack();
  let world: World;
  let registry: Registry;
  let clean: string[];

  before(async () => {
    world = up.use(await openWorld());
    registry = up.use(await openRegistry({ dir: `${world.dir}/registry` }));
    await world.start({ "functions.ready_timeout": "3s" });
    clean = await world.traces();
    for (const text of ["one", "two"]) await push(text, `${text}\n`);
  });
  after(() => up.disposeAsync());

  async function push(name: string, text: string, extra = {}): Promise<string> {
    const file = await webImage(`${world.dir}/${name}.tar`, `docker.io/library/${name}:1`, text, extra);
    return registry.push(file, `${name}:1`);
  }

  const image = (name: string) => `${registry.host}/${name}:1`;
  const deploy = (method: string, body: object) => world.api(method, "/system/functions", body);

  async function deployed(body: { service: string; [field: string]: unknown }): Promise<void> {
    const answer = await deploy("POST", body);
    assert.equal(answer.status, 202, answer.text);
  }

  async function removed(functionName: string): Promise<void> {
    assert.equal((await deploy("DELETE", { functionName })).status, 202);
  }

  test("with curl: push, deploy, call, update, call, delete; and nothing is left", async () => {
    const password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
    const curl = async (...args: string[]) =>
      (await run("curl", ["--silent", "--show-error", "--write-out", " %{http_code}", ...args])).stdout;
    const admin = (method: string, body: object) =>
      curl("-u", `admin:${password}`, "-X", method, "-d", JSON.stringify(body), `${world.url}/system/functions`);

    assert.equal(await admin("POST", { service: "web", image: image("one") }), " 202");
    assert.equal(await curl(`${world.url}/function/web`), "one\n 200");
    assert.equal(await admin("PUT", { service: "web", image: image("two") }), " 202");
    assert.equal(await curl(`${world.url}/function/web.${world.namespace}/`), "two\n 200");
    assert.equal(await admin("DELETE", { functionName: "web" }), " 202");
    assert.match(await curl(`${world.url}/function/web`), /^function web\..* does not exist.* 404$/s);

    // layers stay as a cache as long as their image is named; without the names they must go too
    await eventually(
      () => world.traces(),
      (found) => !found.some((f) => f.includes("@sha256:")),
    );
    for (const name of ["one", "two"]) await world.ctr("images", "remove", "--sync", image(name));
    assert.deepEqual(await world.traces(), clean);
  });

  test("a list shows a function exactly as it was deployed", async () => {
    const body = {
      service: "echo",
      image: image("one"),
      envProcess: "cat -",
      envVars: { A: "b=c\nd", EMPTY: "" },
      constraints: ["node.arch=amd64"],
      labels: { team: "x" },
      annotations: { note: "many\nlines" },
      limits: { memory: "128M", cpu: "100m" },
      requests: { memory: "64Mi" },
      readOnlyRootFilesystem: true,
    };
    await deployed(body);
    const [listed] = JSON.parse((await world.api("GET", "/system/functions")).text);
    const { service, ...asked } = body;
    const { createdAt, state, invocationCount, ...shown } = listed;
    assert.deepEqual(shown, { ...asked, name: service, namespace: world.namespace, replicas: 1, availableReplicas: 1 });
    assert.equal(state, "Ready");
    assert.equal(invocationCount, 0);
    assert.ok(Math.abs(Date.parse(createdAt) - Date.now()) < 60_000);
    await removed("echo");
  });

  test("what cannot be is refused with a reason, and the running version goes on", async () => {
    await deployed({ service: "web", image: image("one") });
    const pid = await taskPid("web");
    const good = { service: "web", image: image("two") };
    const table: [string, string, object, number, RegExp][] = [
      [
        "an image that the registry does not have",
        "PUT",
        { ...good, image: image("none") },
        400,
        /image 127\.0\.0\.1:\d+\/none:1 does not exist/,
      ],
      [
        "a reference that is none",
        "PUT",
        { ...good, image: "Upper/Case" },
        400,
        /image reference "Upper\/Case" is not valid/,
      ],
      ["a registry that is not there", "PUT", { ...good, image: "127.0.0.1:1/x:1" }, 502, /could not be fetched/],
      ["no image", "PUT", { service: "web" }, 400, /image: a function needs an image/],
      ["a name in capitals", "POST", { ...good, service: "Web" }, 400, /service: "Web" must be at most 63 lower-case/],
      ["a name that climbs", "POST", { ...good, service: "../web" }, 400, /service/],
      [
        "memory that is no amount",
        "PUT",
        { ...good, limits: { memory: "lots" } },
        400,
        /limits\.memory: "lots" is not an amount/,
      ],
      [
        "memory below what a container needs",
        "PUT",
        { ...good, limits: { memory: "1Mi" } },
        400,
        /limits\.memory: 1Mi is below/,
      ],
      ["negative CPU", "PUT", { ...good, limits: { cpu: "-1" } }, 400, /limits\.cpu/],
      ["a secret that is not there", "PUT", { ...good, secrets: ["nope"] }, 400, /secret nope does not exist/],
      ["a secret that climbs", "PUT", { ...good, secrets: ["../../etc"] }, 400, /cannot be the name of a secret/],
      [
        "a namespace that is not there",
        "PUT",
        { ...good, namespace: "elsewhere" },
        400,
        /namespace elsewhere is not valid/,
      ],
      ["a label that is not text", "PUT", { ...good, labels: { a: 1 } }, 400, /labels\.a/],
      ["an update of nothing", "PUT", { ...good, service: "other" }, 404, /function other\..* does not exist/],
      ["a second function of one name", "POST", good, 409, /function web\..* exists already/],
    ];
    for (const [what, method, body, status, text] of table) {
      const answer = await deploy(method, body);
      assert.equal(answer.status, status, `${what}: ${answer.text}`);
      assert.match(answer.text, text, what);
    }
    const refused = await world.api(
      "PUT",
      "/system/functions",
      good,
      `Basic ${Buffer.from("admin:wrong").toString("base64")}`,
    );
    assert.deepEqual(
      [refused.status, refused.text, refused.headers.get("www-authenticate")],
      [401, "invalid credentials", 'Basic realm="Restricted"'],
    );
    assert.equal((await world.api("PUT", "/system/functions", "{")).status, 400);

    assert.equal((await world.call("/function/web")).text, "one\n");
    assert.equal(await taskPid("web"), pid);
    const [listed] = JSON.parse((await world.api("GET", "/system/functions")).text);
    assert.equal(listed.image, image("one"));
    await removed("web");
  });

  test("a version that does not come up leaves the old one serving, and says why", async () => {
    await push("crash", "", { cmd: ["sh", "-c", "echo no such luck >&2; exit 7"] });
    await push("silent", "", { cmd: ["sleep", "1000"] });
    await push("missing", "", { cmd: ["/no/such/program"] });
    await deployed({ service: "web", image: image("one") });
    const pid = await taskPid("web");
    const table: [string, RegExp][] = [
      ["crash", /exited with code 7 before it was ready; its last output: no such luck/],
      ["silent", /did not get ready within 3 s/],
      ["missing", /could not be started: .*no such file/],
    ];
    for (const [name, text] of table) {
      const answer = await deploy("PUT", { service: "web", image: image(name) });
      assert.equal(answer.status, 500, name);
      assert.match(answer.text, text);
      assert.equal((await world.call("/function/web")).text, "one\n");
      assert.equal(await taskPid("web"), pid);
      const status = JSON.parse((await world.api("GET", "/system/function/web")).text);
      assert.equal(status.image, image("one"));
      assert.match(status.reason, text);
    }
    // only the old version's replica is left of all these
    await eventually(
      () => world.ctr("containers", "list", "--quiet"),
      (list) => list.trim().split("\n").length === 1,
    );
    await removed("web");
  });

  test("a new function that does not come up fails with the reason and stays to be mended", async () => {
    const answer = await deploy("POST", { service: "web", image: image("crash") });
    assert.equal(answer.status, 500);
    assert.match(answer.text, /no such luck/);
    const status = JSON.parse((await world.api("GET", "/system/function/web")).text);
    assert.equal(status.availableReplicas, 0);
    assert.match(status.reason, /exited with code 7/);
    assert.equal((await deploy("PUT", { service: "web", image: image("one") })).status, 202);
    assert.equal((await world.call("/function/web")).text, "one\n");
    await removed("web");
  });

  test("inside: environment, secrets, limits and nothing that a function does not need", async () => {
    const secret = randomBytes(64);
    const created = await world.api("POST", "/system/secrets", { name: "key", rawValue: secret.toString("base64") });
    assert.equal(created.status, 202);
    await push("user", "", { user: "app" });
    await deployed({
      service: "inside",
      image: image("user"),
      envProcess: "cat",
      annotations: { "napd.watchdog": "image" },
      envVars: { GREETING: "a=b" },
      secrets: ["key"],
      limits: { memory: "64Mi", cpu: "500m" },
    });
    const { text: info } = await world.call("/function/inside/cgi-bin/info");
    for (const line of [
      /^uid=1000\(app\)/m,
      /^GREETING=a=b$/m,
      /^fprocess=cat$/m,
      /^OPENFAAS_NAME=inside$/m,
      /^NoNewPrivs:\t1$/m,
      /^Seccomp:\t2$/m,
      /^CapEff:\t0+$/m,
      /^CapBnd:\t0+$/m,
      /^nameserver 10\./m,
      /localhost/,
      /-r--------\s+1 1000\s+1000\s+64 .* key$/m,
    ])
      assert.match(info, line);
    const shown = Buffer.from(await (await fetch(`${world.url}/function/inside/cgi-bin/say?key`)).arrayBuffer());
    assert.deepEqual(shown, secret);
    const group = (controller: string, file: string) =>
      readFile(
        `/sys/fs/cgroup/${controller}/${world.bridge}/${world.namespace}/inside.${generationOf(ids)}.0/${file}`,
        "utf8",
      );
    const ids = await world.ctr("containers", "list", "--quiet");
    assert.equal((await group("memory", "memory.limit_in_bytes")).trim(), String(64 * 2 ** 20));
    assert.equal((await group("cpu", "cpu.cfs_quota_us")).trim(), "50000");
    assert.equal((await group("pids", "pids.max")).trim(), "512");
    await removed("inside");
    await world.api("DELETE", "/system/secrets", { name: "key" });
  });

  test("a function reaches the gateway and other functions by name through it, and nobody past it", async () => {
    // curl with its libraries: a statically linked busybox cannot look names up
    const curl = [
      { path: "/usr/bin/curl", file: "/usr/bin/curl", mode: 0o755 },
      ...(await librariesOf("/usr/bin/curl")),
    ];
    const asks = (target: string) =>
      `#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\ncurl -sSm 2 "${target}" 2>&1 || echo "failed"\n`;
    await deployed({ service: "callee", image: image("two") });
    const callee = await addressOf("callee");
    const targets = {
      byname: `http://callee:${world.port}/`,
      full: `http://callee.${world.namespace}:${world.port}/`,
      gateway: `http://gateway.openfaas:${world.port}/function/callee`,
      direct: `http://${callee}:8080/`,
      admin: `http://gateway:${world.port}/system/functions`,
    };
    const scripts = Object.entries(targets).map(([name, target]) => ({
      path: `/www/cgi-bin/${name}`,
      content: asks(target),
      mode: 0o755,
    }));
    const layers = [await baseLayer(), curl, scripts];
    await deployed({ service: "caller", image: await push("caller", "", { layers }) });
    const ask = async (name: string) => (await world.call(`/function/caller/cgi-bin/${name}`)).text;
    assert.equal(await ask("byname"), "two\n");
    assert.equal(await ask("full"), "two\n");
    assert.equal(await ask("gateway"), "two\n");
    assert.match(await ask("direct"), /failed/);
    assert.equal(await ask("admin"), "invalid credentials");
    await removed("caller");
    await removed("callee");
  });

  test("our watchdog in an image makes any program a function", async () => {
    const file = await watchdogImage(`${world.dir}/cat.tar`, "docker.io/library/cat:1", "cat");
    await deployed({ service: "cat", image: await registry.push(file, "cat:1") });
    const answer = await world.call("/function/cat", { method: "POST", body: "grüß dich" });
    assert.deepEqual([answer.status, answer.text], [200, "grüß dich"]);
    assert.ok(answer.headers.get("x-duration-seconds"));
    assert.ok(answer.headers.get("x-call-id"));
    await removed("cat");
  });

  async function taskPid(name: string): Promise<string> {
    const tasks = await world.ctr("tasks", "list");
    return tasks
      .split("\n")
      .find((l) => l.startsWith(`${name}.`))!
      .split(/\s+/)[1]!;
  }

  async function addressOf(name: string): Promise<string> {
    const file = (await readdir(`${world.paths.run}/cni`)).find((f) => f.includes(`.${name}.`))!;
    return JSON.parse(await readFile(`${world.paths.run}/cni/${file}`, "utf8")).address;
  }
});

function generationOf(containers: string): string {
  return /\.(\d+)\.0/.exec(containers)![1]!;
}
