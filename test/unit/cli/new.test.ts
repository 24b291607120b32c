/** Functions that are made of templates, and where the templates come from. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite, test } from "node:test";
import { openRecordingServer, type Place } from "../../support/nap.ts";
import { bench } from "../../support/nap-project.ts";
import { commitFiles } from "../../support/template-repository.ts";

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
