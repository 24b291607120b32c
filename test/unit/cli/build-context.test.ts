/** Templates are found where they should be, and build contexts hold what they should and nothing of the machine. */
import assert from "node:assert/strict";
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite, test } from "node:test";
import { assembleContext, type Buildable } from "../../../src/cli/build-context.ts";
import type { Context } from "../../../src/cli/context.ts";
import { findTemplate, listTemplates } from "../../../src/cli/templates.ts";
import { napContext, openPlace } from "../../support/nap.ts";
import { tmpDir } from "../../support/tmp.ts";

const zz = {
  "template/zz/template.yml": "language: zed\nfprocess: ./handler\n",
  "template/zz/Dockerfile": "FROM scratch\n",
  "template/zz/main.go": "m\n",
  "template/zz/function/handler.go": "template's\n",
  "template/zz/function/keep.txt": "k",
  "fn/handler.go": "mine\n",
  "fn/sub/x.txt": "x",
  "fn/build/no": "n",
  "fn/template/no": "n",
};
const fn: Buildable = { name: "fn", lang: "zz", handler: "./fn" };

async function inPlace(
  files: Record<string, string>,
  work: (context: Context, cwd: string) => Promise<void>,
  env: Record<string, string> = {},
): Promise<void> {
  await using dir = await tmpDir();
  const place = await openPlace(dir.path, files);
  await work(napContext(place, { env }).context, place.cwd);
}

const filesOf = async (dir: string): Promise<string[]> =>
  (await readdir(dir, { recursive: true, withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1))
    .sort();

suite("templates", () => {
  test("the project's come before those of nap", async () => {
    await inPlace({ "template/node/template.yml": "language: mine\n" }, async (context, cwd) => {
      assert.equal((await findTemplate(context, "node"))?.dir, join(cwd, "template/node"));
      assert.equal((await findTemplate(context, "node"))?.language, "mine");
      assert.match((await findTemplate(context, "bash"))!.dir, /\/templates\/bash$/);
      assert.equal(await findTemplate(context, "cobol"), undefined);
      const names = (await listTemplates(context)).map((t) => t.name);
      for (const name of ["bash", "dockerfile", "node", "python3", "static", "typescript"])
        assert.equal(names.filter((n) => n === name).length, 1, name);
    });
  });

  test("template.yml is read as OpenFaaS has it, and its layer", async () => {
    const yaml =
      "language: zed\nfprocess: ./handler\nhandler_folder: src/fn\nmount_ssh: true\nwelcome_message: |\n  Hi\n" +
      "build_options:\n- name: dev\n  packages: [gcc, make]\n" +
      "layer: {base: 'img:1', environment: {mode: http}}\n";
    await inPlace({ "template/zz/template.yml": yaml }, async (context, cwd) => {
      assert.deepEqual(await findTemplate(context, "zz"), {
        name: "zz",
        dir: join(cwd, "template/zz"),
        language: "zed",
        fprocess: "./handler",
        handlerFolder: "src/fn",
        mountSsh: true,
        welcome: "Hi\n",
        buildOptions: [{ name: "dev", packages: ["gcc", "make"] }],
        layer: { base: "img:1", path: "/home/app", user: "1000:1000", environment: { mode: "http" } },
      });
    });
  });

  for (const [what, yaml, message] of [
    ["a handler folder elsewhere", "handler_folder: ../../x", /handler_folder/],
    ["a layer without a base", "layer: {path: /x}", /layer.base/],
    ["a layer at a relative path", "layer: {base: i, path: x}", /layer.path/],
    ["a layer of a user by name", "layer: {base: i, user: app}", /layer.user/],
    ["no YAML", "a: [", /template.yml/],
  ] as const)
    test(`${what} is refused`, async () => {
      await inPlace({ "template/zz/template.yml": yaml }, async (context) => {
        await assert.rejects(findTemplate(context, "zz"), { message });
      });
    });

  test("a language is no path", async () => {
    await inPlace({ "other/template.yml": "" }, async (context) => {
      for (const lang of ["../other", "a/b", "..", ""]) await assert.rejects(findTemplate(context, lang), /is no name/);
    });
  });
});

suite("a build context", () => {
  test("is the template with the handler folder over it, without build and template", async () => {
    await inPlace(zz, async (context, cwd) => {
      await chmod(join(cwd, "fn/sub"), 0o750);
      await chmod(join(cwd, "fn/handler.go"), 0o755);
      const { dir, handlerFolder } = await assembleContext(context, fn);
      assert.deepEqual([dir, handlerFolder], [join(cwd, "build/fn"), "function"]);
      assert.deepEqual(await filesOf(dir), [
        "Dockerfile",
        "function/handler.go",
        "function/keep.txt",
        "function/sub/x.txt",
        "main.go",
        "template.yml",
      ]);
      assert.equal(await readFile(join(dir, "function/handler.go"), "utf8"), "mine\n");
      const mode = async (path: string) => (await stat(join(dir, path))).mode & 0o777;
      assert.deepEqual([await mode("function/handler.go"), await mode("function/sub")], [0o755, 0o750]);
      assert.equal(await mode(""), 0o700);
    });
  });

  test("is made anew every time", async () => {
    await inPlace({ ...zz, "build/fn/old": "", "build/other/file": "" }, async (context, cwd) => {
      assert.ok(!(await filesOf((await assembleContext(context, fn)).dir)).includes("old"));
      assert.deepEqual(await filesOf(join(cwd, "build/other")), ["file"]);
    });
  });

  test("is open to others in CI", async () => {
    const open = async (context: Context) => {
      const { dir } = await assembleContext(context, fn);
      assert.equal((await stat(dir)).mode & 0o777, 0o777);
    };
    await inPlace(zz, open, { CI: "true" });
  });

  test("of a Dockerfile is the handler folder alone", async () => {
    await inPlace({ "d/Dockerfile": "FROM scratch\n", "d/sub/x": "" }, async (context) => {
      const { dir, template } = await assembleContext(context, { name: "d", lang: "dockerfile", handler: "d" });
      assert.deepEqual(await filesOf(dir), ["Dockerfile", "sub/x"]);
      assert.equal(template, undefined);
    });
  });

  test("takes the working directory as handler, or one above it, without itself", async () => {
    const { "fn/handler.go": _, ...rest } = zz;
    await inPlace({ ...rest, "handler.go": "mine\n" }, async (context) => {
      const here = await filesOf((await assembleContext(context, { ...fn, handler: "." })).dir);
      assert.ok(here.includes("function/handler.go"));
      assert.ok(!here.some((path) => path.startsWith("function/build") || path.startsWith("function/template")));
      const above = await filesOf((await assembleContext(context, { ...fn, handler: ".." })).dir);
      assert.ok(above.includes("function/cwd/handler.go"));
      assert.ok(!above.some((path) => path.includes("cwd/build/fn")));
    });
  });

  test("has further paths below the handler folder", async () => {
    await inPlace({ ...zz, "common/a/lib.txt": "lib", "one.txt": "1" }, async (context) => {
      const { dir } = await assembleContext(context, fn, ["./common", "one.txt"]);
      const files = await filesOf(dir);
      assert.ok(files.includes("function/common/a/lib.txt") && files.includes("function/one.txt"));
    });
  });

  test("follows links within the project", async () => {
    await inPlace({ ...zz, "lib/code.go": "lib\n" }, async (context, cwd) => {
      await symlink("../lib", join(cwd, "fn/lib"));
      await symlink("../lib/code.go", join(cwd, "fn/code.go"));
      const { dir } = await assembleContext(context, fn);
      assert.equal(await readFile(join(dir, "function/lib/code.go"), "utf8"), "lib\n");
      assert.equal(await readFile(join(dir, "function/code.go"), "utf8"), "lib\n");
    });
  });

  test("has a folder where the template had a file, and the other way round", async () => {
    await inPlace(
      { ...zz, "template/zz/function/a": "", "template/zz/function/b/c": "", "fn/a/x": "", "fn/b": "" },
      async (context) => {
        const files = await filesOf((await assembleContext(context, fn)).dir);
        assert.ok(files.includes("function/a/x") && files.includes("function/b"));
      },
    );
  });

  const refused: [string, (cwd: string) => Promise<unknown>, Partial<Buildable>, string[], RegExp][] = [
    ["a link out of the project", (cwd) => symlink("/etc/passwd", join(cwd, "fn/p")), {}, [], /outside of the project/],
    ["a link to the folder it is in", (cwd) => symlink("..", join(cwd, "fn/sub/up")), {}, [], /that it is in/],
    ["a link to nothing", (cwd) => symlink("nothing", join(cwd, "fn/n")), {}, [], /not there/],
    [
      "a template's link to files of the project",
      (cwd) => symlink("../../fn/handler.go", join(cwd, "template/zz/h")),
      {},
      [],
      /outside of the project/,
    ],
    ["a name that is a path", async () => {}, { name: "../../fn" }, [], /no name of a function/],
    ["an empty name", async () => {}, { name: "" }, [], /no name of a function/],
    ["a handler that is not there", async () => {}, { handler: "gone" }, [], /is no folder/],
    ["a handler that is a file", (cwd) => writeFile(join(cwd, "file"), ""), { handler: "file" }, [], /is no folder/],
    ["a template that is not there", async () => {}, { lang: "cobol" }, [], /no template cobol/],
    ["a copy from above", async () => {}, {}, ["../x"], /below its folder/],
    ["a copy of an absolute path", async () => {}, {}, ["/etc"], /below its folder/],
    ["a copy of everything", async () => {}, {}, ["."], /below its folder/],
    ["a copy of what is not there", async () => {}, {}, ["gone"], /cannot be read: ENOENT/],
    [
      "a copy that is a link out",
      async (cwd) => {
        await mkdir(join(cwd, "c"));
        await symlink("/etc", join(cwd, "c/etc"));
      },
      {},
      ["c"],
      /outside of the project/,
    ],
  ];
  for (const [what, prepare, changed, copy, message] of refused)
    test(`refuses ${what}`, async () => {
      await inPlace({ ...zz, "precious/file": "" }, async (context, cwd) => {
        await prepare(cwd);
        await assert.rejects(assembleContext(context, { ...fn, ...changed }, copy), { message });
        assert.deepEqual(await filesOf(join(cwd, "precious")), ["file"]);
      });
    });
});
