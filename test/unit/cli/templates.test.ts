/** The templates that come with nap: what they say, what they start with, and the servers in them. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { startChild, waitReady } from "../../../scripts/child.ts";
import { listTemplates, ownTemplates, type Template } from "../../../src/cli/templates.ts";
import { freePort } from "../../support/free-port.ts";
import { napContext, openPlace } from "../../support/nap.ts";
import { tmpDir } from "../../support/tmp.ts";

const exec = promisify(execFile);
await using dir = await tmpDir();
const templates = await listTemplates(napContext(await openPlace(dir.path)).context);
/** Templates of a language that this machine lacks are left out; `npm test` installs it. */
const lacks = await exec("python3", ["--version"]).then(
  () => undefined,
  () => "python3",
);
const without = (name: string) => ({ skip: name === lacks && `${name} is not installed` });
const contentOf = (t: Template, path: string) => readFile(join(t.dir, path), "utf8");

/** `ENV a=b c="d e"` of a Dockerfile. */
function environmentOf(dockerfile: string): Record<string, string> {
  const lines = dockerfile.split("\n").filter((line) => line.startsWith("ENV "));
  const all = lines.flatMap((line) => [...line.slice(4).matchAll(/(\w+)=(?:"([^"]*)"|(\S+))/g)]);
  return Object.fromEntries(all.map(([, key, quoted, bare]) => [key!, quoted ?? bare!]));
}

suite("templates that come with nap", () => {
  for (const t of templates.filter((t) => t.layer))
    test(`${t.name}: the Dockerfile and the layer say the same`, async () => {
      const dockerfile = await contentOf(t, "Dockerfile");
      const { base, path, user, environment } = t.layer!;
      assert.equal(/^ARG BASE_IMAGE=(.*)$/m.exec(dockerfile)![1], base);
      assert.equal(/^WORKDIR (.*)$/m.exec(dockerfile)![1], path);
      assert.equal(/^USER (.*)$/m.exec(dockerfile)![1], user);
      const process = t.fprocess === undefined ? {} : { fprocess: t.fprocess };
      assert.deepEqual(environmentOf(dockerfile), { ...environment, ...process });
    });

  for (const t of templates)
    test(`${t.name} has a handler, a test, a short README and a Dockerfile on the watchdog`, async () => {
      const files = await readdir(join(t.dir, t.handlerFolder));
      assert.ok(files.some((name) => /^(handler\.\w+|public)$/.test(name)));
      assert.ok(files.some((name) => /test/.test(name)));
      assert.ok((await contentOf(t, `${t.handlerFolder}/README.md`)).split("\n").length <= 12);
      const dockerfile = await contentOf(t, t.layer ? "Dockerfile" : `${t.handlerFolder}/Dockerfile`);
      assert.match(dockerfile, /^ARG WATCHDOG_IMAGE=.*\n(.*\n)*FROM \$\{WATCHDOG_IMAGE\} AS watchdog$/m);
      assert.match(dockerfile, /^CMD \["\/opt\/napd\/watchdog\/fwatchdog"\]$/m);
      assert.ok(t.description && t.welcome);
    });

  const tests: Record<string, readonly string[]> = {
    node: [process.execPath, "--test"],
    typescript: [process.execPath, "--test"],
    python3: ["python3", "-B", "-m", "unittest"],
    bash: ["bash", "test.sh"],
    dockerfile: ["sh", "test.sh"],
    static: ["sh", "test.sh"],
  };
  for (const t of templates)
    test(
      `${t.name}: the test that it starts with passes, and fails when the handler is broken`,
      without(t.name),
      async () => {
        await using place = await tmpDir();
        const cwd = join(place.path, "function");
        await cp(join(t.dir, t.handlerFolder), cwd, { recursive: true });
        const [program, ...args] = tests[t.name]!;
        // the runner of this very test tells its children so
        const { NODE_TEST_CONTEXT: _, ...env } = process.env;
        await exec(program!, args, { cwd, env });
        const files = await readdir(cwd);
        const handler = files.find((name) => name.startsWith("handler.") && !name.includes("test"));
        if (handler) await writeFile(join(cwd, handler), "\n");
        else await rm(join(cwd, "public/style.css"));
        await assert.rejects(exec(program!, args, { cwd, env }));
      },
    );

  test("node and typescript have the same server", async () => {
    const [node, typescript] = ["node", "typescript"].map((name) => templates.find((t) => t.name === name)!);
    assert.equal(await contentOf(node!, "index.mjs"), await contentOf(typescript!, "index.mjs"));
  });
});

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

/** A template's server with another handler, as the watchdog starts it. */
async function serve(
  name: string,
  files: Record<string, string>,
  work: (
    call: (
      path: string,
      init?: { method?: string; headers?: Record<string, string>; body?: string[] },
    ) => Promise<Answer>,
    stop: () => Promise<number | null>,
  ) => Promise<void>,
  more: Record<string, string> = {},
): Promise<void> {
  await using place = await tmpDir();
  await cp(join(ownTemplates, name), place.path, { recursive: true });
  for (const [file, text] of Object.entries(files)) await writeFile(join(place.path, "function", file), text);
  const port = await freePort();
  const [program, ...args] =
    name === "python3"
      ? ["python3", "-B", join(place.path, "index.py")]
      : [process.execPath, join(place.path, "index.mjs")];
  const logFile = join(place.path, "log");
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  await using child = await startChild(program!, args, {
    logFile,
    env: { ...env, ...more, http_port: String(port) },
  });
  const call = (
    path: string,
    {
      method = "GET",
      headers = {},
      body = [],
    }: { method?: string; headers?: Record<string, string>; body?: string[] } = {},
  ) =>
    new Promise<Answer>((resolve, reject) => {
      const sent = request({ host: "127.0.0.1", port, path, method, headers }, async (response) => {
        let text = "";
        for await (const piece of response) text += piece;
        resolve({ status: response.statusCode!, headers: response.headers, text });
      });
      sent.once("error", reject);
      for (const piece of body) sent.write(piece);
      sent.end();
    });
  await waitReady(
    child,
    () =>
      call("/").then(
        () => true,
        () => false,
      ),
    { what: name, timeoutMs: 60_000, logFile },
  );
  await work(call, async () => (await child.stop(60_000)).code);
}

const json = { "content-type": "application/json" };

suite("the server of node", () => {
  test("gives handlers what people know, and sends what they answer", async () => {
    const handler = `module.exports = async (event, context) => {
      if (event.path === "/fail") return context.fail(new Error("no"));
      if (event.path === "/throw") throw new Error("oops");
      if (event.path === "/bytes") return Buffer.from("bytes");
      if (event.path === "/none") return context.status(204).succeed();
      if (event.path === "/stream") return (async function* () { yield "a"; yield "b"; })();
      return context.status(201).headers({ "X-Own": "1" }).succeed(event);
    };`;
    await serve(
      "node",
      { "handler.js": handler },
      async (call, stop) => {
        const echo = await call("/a/b?x=1&y=2&y=3", {
          method: "PUT",
          headers: { ...json, "X-Mine": "m" },
          body: ['{"k":', "1}"],
        });
        assert.deepEqual([echo.status, echo.headers["x-own"]], [201, "1"]);
        assert.match(String(echo.headers["content-type"]), /^application\/json/);
        const event = JSON.parse(echo.text);
        assert.deepEqual(event.query, { x: "1", y: ["2", "3"] });
        assert.deepEqual(
          [event.method, event.path, event.body, event.headers["x-mine"]],
          ["PUT", "/a/b", { k: 1 }, "m"],
        );
        assert.equal(JSON.parse((await call("/", { method: "POST", body: ["text"] })).text).body, "text");
        const brief = async (path: string, init = {}) => {
          const { status, text } = await call(path, init);
          return [status, text];
        };
        assert.deepEqual(await brief("/fail"), [500, "Error: no"]);
        assert.deepEqual(await brief("/throw"), [500, "Error: oops\n"]);
        assert.deepEqual(await brief("/bytes"), [200, "bytes"]);
        assert.deepEqual(await brief("/none"), [204, ""]);
        assert.deepEqual(await brief("/stream"), [200, "ab"]);
        assert.equal((await call("/", { method: "POST", headers: json, body: ["{"] })).status, 400);
        assert.equal((await call("/", { method: "POST", body: ["x".repeat(3000)] })).status, 413);
        assert.equal(await stop(), 0);
      },
      { MAX_RAW_SIZE: "2kb" },
    );
  });

  for (const [what, template, files] of [
    ["a module", "node", { "handler.mjs": "export default async () => 'mine';" }],
    ["with a callback", "node", { "handler.js": "module.exports = (event, context, done) => done(null, 'mine');" }],
    [
      "by package.json",
      "node",
      { "package.json": '{"main":"main.js"}', "main.js": "module.exports = async () => 'mine';" },
    ],
    ["in TypeScript", "typescript", { "handler.ts": "export default async (): Promise<string> => 'mine';" }],
  ] as [string, string, Record<string, string>][])
    test(`takes a handler ${what}`, async () => {
      await serve(template, files, async (call) => assert.equal((await call("/")).text, "mine"));
    });
});

suite("the server of python3", () => {
  test("gives handlers what people know, and sends what they answer", without("python3"), async () => {
    const handler = `import json
def handle(event, context):
    if event.path == "/throw": raise ValueError("oops")
    if event.path == "/bytes": return {"body": b"bytes", "headers": {"X-Own": "1"}}
    if event.path == "/none": return {"statusCode": 204}
    if event.path == "/text": return "text"
    if event.path == "/cookies": return {"headers": {"Set-Cookie": ["a=1", "b=2"]}}
    body = {"method": event.method, "path": event.path, "query": event.query, "mine": event.headers.get("x-MINE"),
            "body": event.body.decode(), "hostname": bool(context.hostname)}
    return {"statusCode": 201, "body": body}
`;
    await serve(
      "python3",
      { "handler.py": handler },
      async (call, stop) => {
        const echo = await call("/a/b?x=1&y=2&y=3", {
          method: "PATCH",
          headers: { "X-Mine": "m" },
          body: ["in ", "chunks"],
        });
        assert.deepEqual([echo.status, echo.headers["content-type"]], [201, "application/json"]);
        assert.deepEqual(JSON.parse(echo.text), {
          method: "PATCH",
          path: "/a/b",
          query: { x: "1", y: ["2", "3"] },
          mine: "m",
          body: "in chunks",
          hostname: true,
        });
        const brief = async (path: string, init = {}) => {
          const { status, text } = await call(path, init);
          return [status, text];
        };
        const length = { "content-length": "4" };
        assert.equal(
          JSON.parse((await call("/", { method: "POST", headers: length, body: ["four"] })).text).body,
          "four",
        );
        assert.deepEqual(await brief("/throw"), [500, "the function failed; its log says why\n"]);
        assert.deepEqual(await brief("/bytes"), [200, "bytes"]);
        assert.deepEqual(await brief("/none"), [204, ""]);
        assert.deepEqual(await brief("/text"), [200, "text"]);
        assert.deepEqual(await brief("/text", { method: "HEAD" }), [200, ""]);
        assert.deepEqual((await call("/cookies")).headers["set-cookie"], ["a=1", "b=2"]);
        assert.equal((await call("/", { method: "POST", body: ["x".repeat(3000)] })).status, 413);
        assert.equal(
          (await call("/", { method: "POST", headers: { "content-length": "3000" }, body: ["x"] })).status,
          413,
        );
        assert.equal(await stop(), 0);
      },
      { MAX_RAW_SIZE: "2kb" },
    );
  });
});
