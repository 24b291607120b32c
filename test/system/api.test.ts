/** The API as clients meet it: over HTTP, with functions, secrets and namespaces on real containerd. */
import assert from "node:assert/strict";
import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { webImage } from "../support/images.ts";
import { openRegistry } from "../support/registry.ts";
import { type Answer, eventually, openWorld, type World } from "../support/world.ts";

const up = new AsyncDisposableStack();
let world: World;
let image: string;

before(async () => {
  world = up.use(await openWorld());
  const registry = up.use(await openRegistry({ dir: `${world.dir}/registry` }));
  await start();
  image = await registry.push(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"), "web:1");
});
after(() => up.disposeAsync());

/** With little patience for a program that as first process of its container does not hear TERM. */
const start = (env: NodeJS.ProcessEnv = {}) =>
  world.start({ "images.pull_policy": "IfNotPresent", "functions.grace": "100ms" }, env);

async function ask(method: string, path: string, body?: unknown, status = 202): Promise<Answer> {
  const answer = await world.api(method, path, body);
  assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`);
  return answer;
}
const json = async (path: string) => JSON.parse((await ask("GET", path, undefined, 200)).text);
const deploy = (body: object, method = "POST") => ask(method, "/system/functions", { image, ...body });
const remove = (functionName: string, namespace?: string) =>
  ask("DELETE", "/system/functions", { functionName, namespace });
const secret = (method: string, name: string, value?: string, namespace?: string) =>
  ask(method, "/system/secrets", { name, namespace, value });
const marked = { labels: { openfaas: "1" } };
const add = (name: string) => ask("POST", "/system/namespace/", { name, ...marked }, 201);
const drop = (name: string) => ask("DELETE", `/system/namespace/${name}`, { name });
/** What a function finds in the file of a secret. */
const said = async (fn: string, name: string) => (await world.call(`/function/${fn}/cgi-bin/say?${name}`)).text;

suite("functions", () => {
  before(async () => {
    await deploy({ service: "web", labels: { "com.openfaas.scale.max": "2" } });
  });
  after(() => remove("web"));

  test("are shown with all that was asked for; keys of maps are the user's own", async () => {
    const maps = `{"__proto__":"a","constructor":"b","Image":"c","":"d"}`;
    const text = `{"Service":"odd","IMAGE":"${image}","labels":${maps},"annotations":${maps},
      "envVars":{"__proto__":"a=b","constructor":"c\\nd","toString":""},
      "Limits":{"Memory":"64Mi","CPU":"500m","nvidia.com/gpu":"1"},"requests":{"memory":null},"network":""}`;
    await ask("POST", "/system/functions", `\ufeff${text}`);
    const status = (await ask("GET", "/system/function/odd?usage=1", undefined, 200)).text;
    for (const field of ["labels", "annotations"]) assert.ok(status.includes(`"${field}":${maps}`), status);
    const { envVars, limits, requests, image: shown } = JSON.parse(status);
    assert.deepEqual(limits, { memory: "64Mi", cpu: "500m", "nvidia.com/gpu": "1" });
    assert.deepEqual([requests, shown], [undefined, image]);
    assert.equal(JSON.stringify(envVars), '{"__proto__":"a=b","constructor":"c\\nd","toString":""}');
    const [listed] = await json("/system/functions");
    assert.deepEqual(listed, await json("/system/function/odd"));
    const seen = (await world.call("/function/odd/cgi-bin/info")).text.split("\n");
    for (const line of ["__proto__=a=b", "constructor=c", "d", "toString="]) assert.ok(seen.includes(line), line);
    await remove("odd");
  });

  const web = { service: "web", image: "web:1" };
  const ghost = { service: "ghost", image: "web:1" };
  type Row = [says: string, method: string, path: string, body: unknown, status: number, text: RegExp];
  const table: Row[] = [
    ["exists", "POST", "functions", web, 409, /function web\..* exists/],
    ["does not exist", "PUT", "functions", ghost, 404, /function ghost\..* does not exist/],
    ["does not exist", "DELETE", "functions", { functionName: "ghost" }, 404, /ghost/],
    ["does not exist", "GET", "function/ghost", undefined, 404, /^$/],
    ["does not exist", "POST", "scale-function/ghost", { replicas: 1 }, 404, /ghost/],
    ["lacks its name", "DELETE", "functions", { functionName: "" }, 400, /functionName/],
    ["lacks its name", "POST", "functions", { image: "web:1" }, 400, /service/],
    ["lacks its image", "POST", "functions", { service: "ghost" }, 400, /image/],
    ["needs a secret that is not there", "POST", "functions", { ...ghost, secrets: ["no"] }, 400, /secret no/],
    ["needs a secret that is not there", "PUT", "functions", { ...web, secrets: ["no"] }, 400, /secret no/],
    ["names a file as secret", "PUT", "functions", { ...web, secrets: ["../../credentials/x"] }, 400, /secrets/],
    ["is in no namespace", "POST", "functions", { ...ghost, namespace: "no" }, 400, /namespace no/],
    ["is in no namespace", "POST", "functions?namespace=no", ghost, 400, /namespace no/],
    ["is in no namespace", "PUT", "functions", { ...web, namespace: "no" }, 400, /namespace no/],
    ["is in no namespace", "DELETE", "functions", { functionName: "web", namespace: "no" }, 400, /namespace no/],
    ["is in no namespace", "DELETE", "functions?namespace=no", { functionName: "web" }, 400, /namespace no/],
    ["is in no namespace", "GET", "functions?namespace=no", undefined, 400, /namespace no/],
    ["is in no namespace", "GET", "function/web?namespace=no", undefined, 400, /namespace no/],
    ["is in no namespace", "POST", "scale-function/web", { replicas: 1, namespace: "no" }, 400, /namespace no/],
    ["is in OpenFaaS' own namespace", "POST", "functions", { ...ghost, namespace: "openfaas" }, 400, /namespace/],
    ["has memory in no unit", "PUT", "functions", { ...web, limits: { memory: "lots" } }, 400, /limits\.memory/],
    ["has memory as a number", "PUT", "functions", { ...web, limits: { memory: 64 } }, 400, /limits\.memory/],
    ["has a number in its environment", "PUT", "functions", { ...web, envVars: { A: 1 } }, 400, /envVars\.A/],
    ["has labels in a list", "PUT", "functions", { ...web, labels: [] }, 400, /labels/],
    ["has a bad label", "PUT", "functions", { ...web, labels: { "com.openfaas.scale.min": "x" } }, 400, /scale\.min/],
    ["has no JSON", "PUT", "functions", "{", 400, /JSON/],
    ["has no body", "PUT", "functions", undefined, 400, /JSON/],
    ["scales to -1", "POST", "scale-function/web", { replicas: -1 }, 400, /replicas/],
    ["scales to 2.0", "POST", "scale-function/web", '{"replicas":2.0}', 400, /replicas/],
    ["scales to a text", "POST", "scale-function/web", { replicas: "2" }, 400, /replicas/],
    ["scales to 2^64", "POST", "scale-function/web", '{"replicas":18446744073709551616}', 400, /replicas/],
  ];
  test("are refused with a reason and without an effect", async () => {
    const before = await json("/system/functions");
    for (const [says, method, path, body, status, text] of table) {
      const answer = await world.api(method, `/system/${path}`, body);
      const what = `one that ${says}, ${method} ${path}: ${answer.text}`;
      assert.equal(answer.status, status, what);
      assert.match(answer.text, text, what);
    }
    assert.deepEqual(await json("/system/functions"), before);
  });

  test("are scaled to at most their maximum, whatever uint64 is asked for, and to none", async () => {
    await ask("POST", "/system/scale-function/web", '{"serviceName":"web","Replicas":18446744073709551615}');
    assert.equal((await json("/system/function/web")).replicas, 2);
    await eventually(
      () => json("/system/function/web"),
      (status) => status.availableReplicas === 2,
    );
    await ask("POST", `/system/scale-function/web?namespace=${world.namespace}`, { serviceName: "web", replicas: 0 });
    assert.equal((await json("/system/function/web")).replicas, 0);
    assert.equal((await world.call("/function/web")).text, "hello\n");
    assert.equal((await json("/system/function/web")).invocationCount, 1);
  });
});

suite("secrets", () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

  before(async () => {
    await secret("POST", "key", "hidden-one");
    await ask("POST", "/system/secrets", { name: "raw", value: "no", rawValue: bytes.toString("base64") });
    await deploy({ service: "reader", secrets: ["key", "raw"] });
  });
  after(async () => {
    await remove("reader");
    for (const name of ["key", "raw"]) await secret("DELETE", name);
  });

  test("are in the function byte for byte, and change there as soon as they are changed", async () => {
    assert.equal(await said("reader", "key"), "hidden-one");
    const raw = await fetch(`${world.url}/function/reader/cgi-bin/say?raw`);
    assert.deepEqual(Buffer.from(await raw.arrayBuffer()), bytes);
    const seen = (await world.call("/function/reader/cgi-bin/info")).text;
    for (const value of ["hidden-two, and longer", "hidden", "größe\n"]) {
      await secret("PUT", "key", value);
      assert.equal(await said("reader", "key"), value);
    }
    const listing = (text: string) => text.split("\n").filter((line) => line.startsWith("-"));
    const now = listing((await world.call("/function/reader/cgi-bin/info")).text);
    assert.deepEqual(
      now.map((line) => line.split(/\s+/)[0]),
      listing(seen).map((line) => line.split(/\s+/)[0]),
    );
  });

  test("that changed while napd died between storing and showing are shown by the next one", async () => {
    await world.napd().kill9();
    await writeFile(`${world.paths.data}/secrets/${world.namespace}/key`, "hidden-stored");
    assert.equal(await running("reader"), true);
    await start();
    assert.equal(await said("reader", "key"), "hidden-stored");
  });

  test("that are deleted stay with who runs, and come back to it when they are made again", async () => {
    await secret("PUT", "key", "hidden-last");
    await secret("DELETE", "key");
    assert.equal(await said("reader", "key"), "hidden-last");
    await secret("POST", "key", "hidden-again");
    assert.equal(await said("reader", "key"), "hidden-again");
  });

  test("are listed with their namespace, and their values are in no answer and no log", async () => {
    const { namespace } = world;
    assert.deepEqual(await json("/system/secrets"), [
      { name: "key", namespace },
      { name: "raw", namespace },
    ]);
    const broken = await world.api("POST", "/system/secrets", '{"name":"x","value":"hidden-broken"');
    const answers = await Promise.all(
      ["secrets", "functions", "function/reader"].map(async (path) => JSON.stringify(await json(`/system/${path}`))),
    );
    for (const text of [...answers, broken.text, await world.log()]) assert.ok(!text.includes("hidden"), text);
  });

  test("that are planted as links lead nowhere", async () => {
    await writeFile(`${world.dir}/outside`, "outside");
    await symlink(`${world.dir}/outside`, `${world.paths.data}/secrets/${world.namespace}/link`);
    assert.ok(!(await json("/system/secrets")).some((s: { name: string }) => s.name === "link"));
    const answer = await world.api("POST", "/system/functions", { service: "spy", image, secrets: ["link"] });
    assert.deepEqual([answer.status, /secret link does not exist/.test(answer.text)], [400, true]);
    await secret("POST", "link", "mine");
    assert.equal(await readFile(`${world.dir}/outside`, "utf8"), "outside");
    await secret("DELETE", "link");
  });

  type Row = [says: string, method: string, body: unknown, status: number, text: RegExp];
  const table: Row[] = [
    ["exists", "POST", { name: "key", value: "x" }, 409, /secret key exists/],
    ["does not exist", "PUT", { name: "no", value: "x" }, 404, /secret no/],
    ["does not exist", "DELETE", { name: "no" }, 404, /secret no/],
    ["is no base64", "POST", { name: "new", rawValue: "a-b_" }, 400, /rawValue/],
    ["is too large", "POST", { name: "new", value: "x".repeat(1024 * 1024 + 1) }, 400, /1048577 bytes.*1048576/],
    ["has no body", "POST", undefined, 400, /JSON/],
    ...["POST", "PUT", "DELETE"].flatMap((method): Row[] => [
      ["climbs by its name", method, { name: "../x", value: "x" }, 400, /name of a secret/],
      ["climbs by its namespace", method, { name: "x", namespace: "..", value: "x" }, 400, /namespace \.\./],
      ["climbs further", method, { name: "x", namespace: "../../etc", value: "x" }, 400, /namespace/],
      ["is in no namespace", method, { name: "x", namespace: "no", value: "x" }, 400, /namespace no/],
    ]),
  ];
  test("are refused with a reason and without an effect", async () => {
    const files = async () => (await readdir(world.paths.data, { recursive: true })).sort();
    const before = await files();
    for (const [says, method, body, status, text] of table) {
      const answer = await world.api(method, "/system/secrets", body);
      const what = `one that ${says}, ${method}: ${answer.text.slice(0, 200)}`;
      assert.equal(answer.status, status, what);
      assert.match(answer.text, text, what);
    }
    for (const path of ["?namespace=..", "?namespace=no", "?namespace=a%2Fb"])
      assert.equal((await world.api("GET", `/system/secrets${path}`)).status, 400);
    assert.deepEqual(await files(), before);
  });
});

async function running(name: string): Promise<boolean> {
  return new RegExp(`^${name}\\.\\S+\\s+\\d+\\s+RUNNING`, "m").test(await world.ctr("tasks", "list"));
}

suite("namespaces", () => {
  /** Those of containerd, with their labels. */
  const inContainerd = async () => (await world.ctr("namespaces", "list")).split("\n").slice(1);
  const isThere = async (name: string) => (await inContainerd()).some((line) => line.startsWith(`${name} `));

  test("hold functions and secrets of equal names apart, and reach each other through the gateway", async () => {
    const team = `${world.namespace}-team`;
    await add(team);
    assert.deepEqual(await json("/system/namespaces"), [world.namespace, team]);
    await secret("POST", "key", "of the default");
    await secret("POST", "key", "of the team", team);
    const wget = `busybox wget -q -O - http://web.${team}:${world.port}/cgi-bin/say?key`;
    await deploy({ service: "web", envProcess: wget });
    await deploy({ service: "web", namespace: team, secrets: ["key"] });
    assert.equal(await said(`web.${team}`, "key"), "of the team");
    assert.equal((await world.call("/function/web")).text, "of the team");
    assert.equal((await json(`/system/functions?namespace=${team}`)).length, 1);
    assert.equal((await json(`/system/function/web?namespace=${team}`)).namespace, team);

    const full = await ask("DELETE", `/system/namespace/${team}`, { name: team }, 409);
    assert.match(full.text, /it still has a function/);
    await remove("web");
    await ask("GET", "/system/function/web", undefined, 404);
    assert.equal(await said(`web.${team}`, "key"), "of the team");
    await remove("web", team);
    await world.ctr("namespaces", "label", team, "napd.bridge="); // as one that containerd made again by itself
    await drop(team);
    await ask("GET", `/system/namespace/${team}`, undefined, 404);
    await ask("GET", `/system/functions?namespace=${team}`, undefined, 400);
    assert.equal(await isThere(team), false);
    assert.deepEqual(await readdir(`${world.paths.data}/secrets`), [world.namespace]);
    await add(team);
    assert.deepEqual(await json(`/system/secrets?namespace=${team}`), []);
    await drop(team);
    await secret("DELETE", "key");
  });

  test("are shown with what their owner says of them, by either path", async () => {
    const annotations = { openfaas: "1", __owner: "x", constructor: "y", long: "x".repeat(10_000) };
    await ask("POST", "/system/namespaces/ignored", { Name: "one", Annotations: annotations }, 201);
    assert.deepEqual(await json("/system/namespace/one"), { name: "one", annotations });
    await ask("PUT", "/system/namespaces/one", { name: "one", labels: { openfaas: "true", a: "b" } });
    for (const path of ["namespace", "namespaces"])
      assert.deepEqual(await json(`/system/${path}/one`), { name: "one", labels: { openfaas: "true", a: "b" } });
    assert.deepEqual((await json(`/system/namespace/${world.namespace}`)).name, world.namespace);
    await drop("one");
  });

  type Row = [says: string, method: string, name: string, body: unknown, status: number, text: RegExp];
  const table: Row[] = [
    ["exists", "POST", "", { name: "there", ...marked }, 409, /there exists/],
    ["is not marked", "POST", "", { name: "new" }, 400, /openfaas/],
    ["is marked wrongly", "POST", "", { name: "new", labels: { openfaas: "0" } }, 400, /openfaas/],
    ["is not marked", "PUT", "there", { name: "there", labels: {} }, 400, /openfaas/],
    ["lacks a name", "POST", "", marked, 400, /name/],
    ["lacks a name", "GET", "", undefined, 400, /name/],
    ["lacks a name", "DELETE", "there", {}, 400, /name/],
    ["climbs", "POST", "", { name: "../x", ...marked }, 400, /name/],
    ["is in capitals", "POST", "", { name: "New", ...marked }, 400, /name/],
    ["has two hyphens in a row", "POST", "", { name: "a--b", ...marked }, 400, /two hyphens/],
    ["is reserved", "POST", "", { name: "openfaas", ...marked }, 400, /reserved/],
    ["is somebody else's", "POST", "", { name: "moby", ...marked }, 409, /somebody else/],
    ["has another name in the path", "PUT", "there", { name: "other", ...marked }, 400, /other/],
    ["has another name in the path", "DELETE", "there", { name: "other" }, 400, /other/],
    ["does not exist", "GET", "no", undefined, 404, /namespace no/],
    ["does not exist", "PUT", "no", { name: "no", ...marked }, 404, /namespace no/],
    ["does not exist", "DELETE", "no", { name: "no" }, 404, /namespace no/],
    ["is somebody else's", "DELETE", "moby", { name: "moby" }, 404, /namespace moby/],
    ["has a number as label", "POST", "", { name: "new", labels: { openfaas: 1 } }, 400, /labels\.openfaas/],
    ["has no JSON", "POST", "", "{", 400, /JSON/],
    ["has no body", "DELETE", "there", undefined, 400, /JSON/],
  ];
  test("are refused with a reason and without an effect", async () => {
    await world.ctr("namespaces", "create", "moby");
    await add("there");
    const before = [await json("/system/namespaces"), await inContainerd()];
    for (const [says, method, name, body, status, text] of table) {
      const answer = await world.api(method, `/system/namespace/${name}`, body);
      const what = `one that ${says}, ${method} ${name}: ${answer.text}`;
      assert.equal(answer.status, status, what);
      assert.match(answer.text, text, what);
    }
    const { namespace } = world;
    assert.match((await ask("DELETE", `/system/namespace/${namespace}`, { name: namespace }, 403)).text, /default/);
    assert.deepEqual([await json("/system/namespaces"), await inContainerd()], before);
    await drop("there");
    await world.ctr("namespaces", "remove", "moby");
  });

  test("are there wholly or not at all, wherever napd dies", async () => {
    const points = [
      ["namespace.added", "POST"],
      ["namespace.removed", "DELETE"],
      ["namespace.leaving", "DELETE"], // last: the start after it passes the point before it
    ] as const;
    const startToDieAt = (at: number) => start(points[at] && { NAPD_FAILPOINTS: `${points[at][0]}=exit` });
    await world.napd().kill9();
    await startToDieAt(0);
    for (const [at, [point, method]] of points.entries()) {
      if (method === "DELETE") {
        await add("half");
        await secret("POST", "key", "x", "half");
      }
      const path = `/system/namespace/${method === "POST" ? "" : "half"}`;
      await assert.rejects(world.api(method, path, { name: "half", ...marked }), point);
      await startToDieAt(at + 1);
      assert.deepEqual(await json("/system/namespaces"), [world.namespace], point);
      assert.equal(await isThere("half"), false, point);
      assert.ok(!(await readdir(`${world.paths.data}/secrets`)).includes("half"), point);
    }
    await add("half");
    await drop("half");
  });

  test("survive a reboot with their functions", async () => {
    const lasting = { name: "lasting", labels: { openfaas: "1", a: "b" }, annotations: { c: "d" } };
    await ask("POST", "/system/namespace/", lasting, 201);
    await deploy({ service: "web", namespace: "lasting" });
    await world.reboot();
    await start();
    assert.deepEqual(await json("/system/namespace/lasting"), lasting);
    assert.equal((await world.call("/function/web.lasting")).text, "hello\n");
    await remove("web", "lasting");
    await drop("lasting");
  });
});
