import assert from "node:assert/strict";
import { chmod, mkdir, symlink, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { suite, test } from "node:test";
import { readTar, StreamCursor } from "../../../src/base/tar.ts";
import { Ignore } from "../../../src/cli/ignore.ts";
import { collect, type Files, packLayer } from "../../../src/cli/pack.ts";
import { tmpDir } from "../../support/tmp.ts";

/** Names to contents; one that ends in a slash is a folder, and a content that begins with `->` a link. */
type Tree = Readonly<Record<string, string>>;

async function make(root: string, tree: Tree): Promise<void> {
  for (const [name, content] of Object.entries(tree)) {
    const path = join(root, name);
    await mkdir(name.endsWith("/") ? path : dirname(path), { recursive: true });
    if (content.startsWith("->")) await symlink(content.slice(2).trim(), path);
    else if (!name.endsWith("/")) await writeFile(path, content);
  }
}

async function packed(root: string, within: string[] = []) {
  const files: Files = new Map();
  const found = await collect(files, root, { to: "app", within });
  const layer = await packLayer(files, { uid: 1000, gid: 1000 });
  return { ...found, layer, names: [...files.keys()].sort(), files };
}

suite("a packed folder", () => {
  const tree: Tree = {
    "b.txt": "b",
    "a/run.sh": "#!/bin/sh",
    "a-b": "between",
    "empty/": "",
    [`long/${"n".repeat(120)}`]: "long",
    "ä ö": "umlauts",
    "a/link": "-> run.sh",
    "far/link": `-> ../long/${"n".repeat(120)}`,
  };

  const variants: [says: string, change: (root: string) => Promise<unknown>, isSame: boolean][] = [
    ["twice", async () => {}, true],
    ["at another time", (root) => utimes(join(root, "b.txt"), 1, 1), true],
    ["of a user with another umask", (root) => chmod(join(root, "b.txt"), 0o600), true],
    ["of another user's folder", (root) => chmod(join(root, "a"), 0o700), true],
    ["beside a repository", (root) => make(root, { ".git/HEAD": "x", ".DS_Store": "x" }), true],
    ["while an editor has it open", (root) => make(root, { ".b.txt.swp": "x", "b.txt~": "x", "4913": "" }), true],
    ["with another content", (root) => writeFile(join(root, "b.txt"), "c"), false],
    ["with a file that can be run", (root) => chmod(join(root, "b.txt"), 0o744), false],
    ["with one more empty folder", (root) => mkdir(join(root, "more")), false],
  ];
  for (const [says, change, isSame] of variants)
    test(`${says} is ${isSame ? "the same" : "another one"}`, async () => {
      await using tmp = await tmpDir();
      const [one, two] = [`${tmp.path}/one`, `${tmp.path}/two`];
      await make(one, tree);
      await make(two, Object.fromEntries(Object.entries(tree).reverse()));
      await change(two);
      const [a, b] = [await packed(one), await packed(two)];
      assert.equal(a.layer.digest === b.layer.digest, isSame);
    });

  test("is a tar file with all of it, of the owner that was asked for", async () => {
    await using tmp = await tmpDir();
    await make(tmp.path, tree);
    const { layer } = await packed(tmp.path);
    const bytes = await buffer(layer.open());
    assert.equal(bytes.length, layer.size);
    const entries = [];
    for await (const { name, type, target, size } of readTar(
      new StreamCursor(
        (async function* () {
          yield bytes;
        })(),
      ),
    ))
      entries.push([name, type, target || size]);
    const long = "n".repeat(120);
    assert.deepEqual(entries, [
      ["app/a", "5", 0],
      ["app/a-b", "0", 7],
      ["app/a/link", "2", "app/a/run.sh"],
      ["app/a/run.sh", "0", 9],
      ["app/b.txt", "0", 1],
      ["app/empty", "5", 0],
      ["app/far", "5", 0],
      ["app/far/link", "2", `app/long/${long}`],
      ["app/long", "5", 0],
      [`app/long/${long}`, "0", 4],
      ["app/ä ö", "0", 7],
    ]);
    assert.deepEqual(
      [bytes.toString("latin1", 108, 115), bytes.toString("latin1", 136, 147)],
      ["0001750", "00000000000"],
    );
  });

  test("larger than what is kept in memory is read again", async () => {
    await using tmp = await tmpDir();
    await writeFile(`${tmp.path}/big`, Buffer.alloc(20 * 2 ** 20, "x"));
    const { layer } = await packed(tmp.path);
    assert.equal((await buffer(layer.open())).length, layer.size);
    await writeFile(`${tmp.path}/big`, "less");
    await assert.rejects(buffer(layer.open()), /has changed while it was read/);
  });

  const links: [says: string, tree: Tree, names: string[] | RegExp][] = [
    ["inner links stay", { "p/a": "x", "p/b": "-> a" }, ["app/a", "app/b"]],
    ["an absolute inner link becomes relative", { "p/a": "x", "p/d/b": "-> @/p/a" }, ["app/a", "app/d", "app/d/b"]],
    ["a link into the project is followed", { "p/b": "-> ../s/f", "s/f": "x" }, ["app/b"]],
    [
      "so is one to a folder, with its own links",
      { "p/b": "-> ../s", "s/f": "x", "s/g": "-> f" },
      ["app/b", "app/b/f", "app/b/g"],
    ],
    ["one that leads out of the project is refused", { "p/b": "-> /etc/passwd" }, /outside of the project/],
    ["one to nothing is refused", { "p/b": "-> none" }, /a link to what is not there/],
    ["one to a folder above is refused", { "p/b": "-> ../../project" }, /a folder that it is in|outside/],
  ];
  for (const [says, files, names] of links)
    test(says, async () => {
      await using tmp = await tmpDir();
      const project = `${tmp.path}/project`;
      const inProject = Object.entries(files).map(([k, v]) => [k, v.replace("@", project)] as const);
      await make(project, Object.fromEntries(inProject));
      const work = packed(`${project}/p`, [project]);
      if (names instanceof RegExp) await assert.rejects(work, names);
      else {
        const { names: found, files: all } = await work;
        assert.deepEqual(found, names);
        for (const one of all.values()) assert.ok(one.kind !== "link" || !one.target.startsWith("/"));
      }
    });
});

suite("what is left out of a folder", () => {
  const rows: [says: string, tree: Tree, left: string[], by: string][] = [
    [
      "what .gitignore names, anywhere",
      { ".gitignore": "*.log\n", "a.log": "", "d/b.log": "", c: "" },
      [".gitignore", "c", "d"],
      ".gitignore",
    ],
    [
      "what is tied to its folder, there only",
      { ".gitignore": "/out\nd/x", out: "", "d/out": "", "d/x": "", "e/d/x": "" },
      [".gitignore", "d", "d/out", "e", "e/d", "e/d/x"],
      ".gitignore",
    ],
    [
      "folders, not files, behind a slash",
      { ".gitignore": "out/", "out/x": "", "d/out": "" },
      [".gitignore", "d", "d/out"],
      ".gitignore",
    ],
    [
      "not what is taken in again",
      { ".gitignore": "*.log\n!keep.log", "a.log": "", "keep.log": "" },
      [".gitignore", "keep.log"],
      ".gitignore",
    ],
    [
      "what a folder's own .gitignore names",
      { "d/.gitignore": "x", "d/x": "", x: "" },
      ["d", "d/.gitignore", "x"],
      ".gitignore",
    ],
    [
      "never node_modules, nor what is in it",
      { ".gitignore": "node_modules\ndist\n", "node_modules/m/dist/i.js": "", "dist/x": "" },
      [".gitignore", "node_modules", "node_modules/m", "node_modules/m/dist", "node_modules/m/dist/i.js"],
      ".gitignore",
    ],
    [
      "by stars, marks and sets",
      {
        ".gitignore": "?.c\n[a-b].d\n[!a-b].e\n**/deep\nx/**\n\\#h\n",
        "a.c": "",
        "aa.c": "",
        "a.d": "",
        "c.d": "",
        "a.e": "",
        "c.e": "",
        "q/deep": "",
        "x/y": "",
        "#h": "",
      },
      [".gitignore", "a.e", "aa.c", "c.d", "q", "x"],
      ".gitignore",
    ],
    [
      ".dockerignore decides alone",
      { ".dockerignore": "*.md\n", ".gitignore": "x", x: "", "a.md": "", "d/b.md": "" },
      [".dockerignore", ".gitignore", "d", "d/b.md", "x"],
      ".dockerignore",
    ],
    [
      "a folder of which something is wanted",
      { ".dockerignore": "d\n!d/keep\n", "d/keep": "", "d/x": "" },
      [".dockerignore", "d/keep"],
      ".dockerignore",
    ],
    [
      "a folder and all below",
      { ".dockerignore": "# all\n/d/\n", "d/e/x": "", "e/d": "" },
      [".dockerignore", "e", "e/d"],
      ".dockerignore",
    ],
  ];
  for (const [says, tree, left, by] of rows)
    test(says, async () => {
      await using tmp = await tmpDir();
      await make(tmp.path, tree);
      const { names, leftOut } = await packed(tmp.path);
      assert.deepEqual([names.map((name) => name.slice("app/".length)), leftOut.by], [left, by]);
    });

  test("what .gitignore files above say, up to the repository's root and no further", async () => {
    await using tmp = await tmpDir();
    await make(tmp.path, {
      ".gitignore": "b",
      "r/.git/HEAD": "",
      "r/.gitignore": "s/f/a\n*.log",
      "r/s/f/a": "",
      "r/s/f/b": "",
      "r/s/f/x.log": "",
    });
    assert.deepEqual((await packed(`${tmp.path}/r/s/f`)).names, ["app/b"]);
  });

  test("is told by path alone, as a watch asks", async () => {
    await using tmp = await tmpDir();
    await make(tmp.path, { ".gitignore": "*.log" });
    const ignore = await Ignore.open(tmp.path);
    assert.deepEqual(
      ["a.log", "d/a.log", ".git", "x.swp", "a"].map((path) => ignore.leavesOut(path, false)),
      [true, true, true, false, false],
    );
  });
});
