import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { readTar, StreamCursor } from "../../../src/base/tar.ts";
import { isSuperseded } from "../../../src/cli/compose.ts";
import { fakeBuilder } from "../../support/fake-builder.ts";
import { nap, openPlace, openRecordingServer, type Scripted, type Seen } from "../../support/nap.ts";
import { tmpDir } from "../../support/tmp.ts";

const folder = { "fn/count.sh": "wc -c\n" };
const images = "/system/images";
const missing = (q: string) => `layer ${new URLSearchParams(q).get("layer")} is not in namespace fn; send it`;

async function* piecesOf(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

/** Runs `nap up` against a gateway that answers as it is told. */
async function up(args: string[], script: Scripted[], files: Record<string, string> = folder, env = {}) {
  await using tmp = await tmpDir();
  await using server = await openRecordingServer(script);
  const place = await openPlace(tmp.path, files);
  const { env: found } = await fakeBuilder(tmp.path, []);
  const ran = await nap(place, ["up", ...args, "-g", server.url], { env: { ...found, ...env } });
  return { ...ran, seen: server.seen() };
}

const made = (usedBy: string[] = []): Scripted => ({
  ...{ status: 201, path: images, method: "POST", body: [{ name: "x", digest: "sha256:0", usedBy }] },
});
const asked = (seen: Seen[]) => seen.map((s) => `${s.method} ${s.path}`);

suite("nap up", () => {
  test("asks for the layer by its digest, sends it when it is not there, deploys and waits", async () => {
    const first: Scripted = { status: 404, path: images, method: "POST", times: 1, body: missing };
    const status = { name: "fn", image: "fn:up-000000000000", state: "Ready" };
    const { exit, stderr, seen } = await up(
      ["fn", "-e", "A=1"],
      [
        first,
        made(),
        { status: 200, path: "/system/function/fn", body: status },
        { status: 202, path: "/system/functions" },
        { status: 202, path: images, method: "DELETE" },
      ],
    );
    assert.equal(exit, 0, stderr);
    assert.deepEqual(asked(seen), [
      ...[`POST ${images}`, `POST ${images}`, "GET /system/function/fn", "PUT /system/functions"],
      ...["GET /system/function/fn", `DELETE ${images}`],
    ]);
    const [ask, send] = seen.map((s) => new URLSearchParams(s.query));
    assert.deepEqual(Object.fromEntries(ask!), Object.fromEntries(send!));
    const { name, base, config } = Object.fromEntries(ask!);
    assert.match(name!, /^fn:up-[0-9a-f]{12}$/);
    assert.equal(base, "docker.io/library/alpine:3");
    assert.deepEqual(JSON.parse(config!), { env: { HOME: "/home/app" }, workingDir: "/home/app", user: "1000:1000" });
    const bytes = Buffer.from(seen[1]!.body);
    const names = [];
    for await (const entry of readTar(new StreamCursor(piecesOf(bytes)))) names.push(entry.name);
    assert.deepEqual([seen[0]!.body, names], ["", ["home/app", "home/app/count.sh"]]);
    const { service, image, envProcess, envVars } = JSON.parse(seen[3]!.body);
    assert.deepEqual([service, image, envProcess, envVars], ["fn", name, "sh count.sh", { A: "1" }]);
    assert.equal(seen[5]!.query, "name=fn%3Aup-000000000000");
  });

  const same = (image: string, more = {}): Scripted => ({
    ...{ status: 200, path: "/system/function/fn" },
    body: { name: "fn", image, envProcess: "sh count.sh", state: "Asleep", ...more },
  });

  test("leaves alone what runs that very content, and nothing else", async () => {
    const tagged = new URLSearchParams((await up(["fn", "--skip-deploy"], [made()])).seen[0]!.query).get("name")!;
    const rows: [says: string, usedBy: string[], status: Scripted, deploys: boolean][] = [
      ["the same", ["fn"], same(tagged), false],
      ["the same name of another base", [], same(tagged), true],
      ["another variable", ["fn"], same(tagged, { envVars: { B: "1" } }), true],
      ["one that has failed", ["fn"], same(tagged, { state: "Failed" }), true],
    ];
    for (const [says, usedBy, status, deploys] of rows) {
      const script = [made(usedBy), status, { status: 202, path: "/system/functions" }];
      const { seen } = await up(["fn", "--wait=false"], script);
      assert.equal(asked(seen).includes("PUT /system/functions"), deploys, says);
    }
  });

  const stack = (text: string) => ({
    "stack.yaml": `provider: {name: openfaas}\nfunctions: {web: {${text}, image: web}}\n`,
    "web/handler.sh": "cat",
    "web/package.json": '{"dependencies": {"left-pad": "1"}}',
  });
  const refusals: [
    says: string,
    args: string[],
    files: Record<string, string>,
    script: Scripted[],
    exit: number,
    text: RegExp,
  ][] = [
    [
      "another gateway",
      ["fn"],
      folder,
      [{ status: 404, body: "404 page not found" }],
      1,
      /only napd does; a builder can/,
    ],
    [
      "what napd refuses",
      ["fn"],
      folder,
      [{ status: 400, body: "no such base" }],
      1,
      /failed no such base \(status 400\)/,
    ],
    [
      "a Dockerfile without a builder",
      [],
      stack("lang: dockerfile, handler: web"),
      [],
      1,
      /it has a Dockerfile; and there is none of buildah/,
    ],
    [
      "a Dockerfile that shall not be built",
      ["--no-builder"],
      stack("lang: dockerfile, handler: web"),
      [],
      1,
      /cannot be made without a builder: it has a Dockerfile/,
    ],
    [
      "dependencies that are not there",
      [],
      stack("lang: node, handler: web"),
      [],
      1,
      /package\.json has dependencies; npm install there.*; and there is none/,
    ],
    [
      "packages of Python that are not there",
      [],
      {
        "stack.yaml": "provider: {name: openfaas}\nfunctions: {web: {lang: python3, handler: web, image: web}}\n",
        "web/handler.py": "",
        "web/requirements.txt": "# one a line\nrequests==2.32.0\n",
      },
      [],
      1,
      /requirements\.txt names packages; pip install --target \. there.*; and there is none/,
    ],
    [
      "build arguments",
      [],
      stack("lang: bash, handler: web, build_args: {A: b}"),
      [],
      1,
      /build_args, build_options or build_secrets; and/,
    ],
    ["flags of folders", ["--base", "x"], stack("lang: bash, handler: web"), [], 2, /are for a folder/],
    [
      "a folder with a stack file",
      ["."],
      stack("lang: bash, handler: web"),
      [],
      2,
      /has a stack\.yaml: run nap up in there/,
    ],
    ["a watch as JSON", ["fn", "--watch", "--json"], folder, [], 2, /has no end/],
  ];
  for (const [says, args, files, script, exit, text] of refusals)
    test(`${says} is told`, async () => {
      const ran = await up(args, script, files);
      assert.deepEqual([ran.exit, text.test(ran.stderr)], [exit, true], ran.stderr);
    });

  test("says nothing when it is told to, but failures; as JSON it says what was made", async () => {
    const quiet = await up(["fn", "-q", "--skip-deploy", "--json"], [made()]);
    const [{ name, status, image }] = JSON.parse(quiet.stdout);
    assert.deepEqual([quiet.exit, quiet.stderr, name, status, image.slice(0, 6)], [0, "", "fn", "made", "fn:up-"]);
    assert.match((await up(["fn", "-q"], [{ status: 400, body: "no" }])).stderr, /^fn +failed no/m);
  });

  test("annotations of flags win over ours", async () => {
    const site = { "fn/index.html": "x" };
    const script = [made(), { status: 404, path: "/system/function/fn" }, { status: 202 }];
    const { seen } = await up(["fn", "--wait=false", "--annotation", "a=b"], script, site);
    assert.deepEqual(JSON.parse(seen.at(-1)!.body).annotations, { a: "b", "napd.watchdog": "inject" });
    const other = await up(["fn", "--wait=false", "--annotation", "napd.watchdog=image"], script, site);
    assert.deepEqual(JSON.parse(other.seen.at(-1)!.body).annotations, { "napd.watchdog": "image" });
  });

  test("which image another one takes the place of", () => {
    const rows: [image: string, by: string, is: boolean][] = [
      ["a:up-000000000000", "a:up-111111111111", true],
      ["a:up-000000000000", "a:up-000000000000", false],
      ["b:up-000000000000", "a:up-111111111111", false],
      ["a:latest", "a:up-111111111111", false],
    ];
    for (const [image, by, is] of rows) assert.equal(isSuperseded(image, by), is, image);
  });
});
