import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { baseFor, type Guess, guess } from "../../../src/cli/guess.ts";

/** Names of files, each with its first line where that matters. */
type Folder = Readonly<Record<string, string>>;

const guessed = (files: Folder, mayBuild = true) =>
  guess(Object.keys(files).sort(), async (name) => files[name]!, { mayBuild });

suite("what a folder is taken for", () => {
  const rows: [files: Folder, kind: Guess["kind"], what: string, base?: string][] = [
    [{ Dockerfile: "", "handler.js": "" }, "builder", ""],
    [{ "handler.js": "", "index.html": "" }, "template", "node"],
    [{ "handler.mjs": "" }, "template", "node"],
    [{ "handler.ts": "", "handler.js": "" }, "template", "typescript"],
    [{ "handler.py": "", "requirements.txt": "" }, "template", "python3"],
    [{ "handler.sh": "#!/bin/sh" }, "template", "bash"],
    [{ "index.html": "", "app.js": "" }, "site", ""],
    [{ "count.sh": "" }, "script", "sh count.sh", "alpine:3"],
    [{ "count.sh": "#!/usr/bin/env bash" }, "script", "bash count.sh", "bash:5"],
    [{ count: "#!/bin/sh -e", "README.md": "# count" }, "script", "sh -e count", "alpine:3"],
    [{ run: "#!/usr/bin/env -S python3 -u" }, "script", "python3 -u run", "python:3-alpine"],
    [{ "index.js": "", "lib.js": "" }, "script", "node index.js", "node:24-alpine"],
    [{ "main.py": "", "a.py": "" }, "script", "python3 main.py", "python:3-alpine"],
    [{ "main.ts": "", "main.test.ts": "", "vite.config.ts": "" }, "script", "node main.ts", "node:24-alpine"],
    [{ "x.rb": "" }, "script", "ruby x.rb", "ruby:3-alpine"],
    [{ "x.pl": "" }, "script", "perl x.pl", "perl:5-slim"],
    [{ "x.php": "<?php" }, "script", "php x.php", "php:8-cli-alpine"],
    [{ x: "#!/opt/lua" }, "script", "lua x", "alpine:3"],
  ];
  for (const [files, kind, what, base = ""] of rows)
    test(Object.keys(files).join(" "), async () => {
      const found = await guessed(files);
      const is = found.kind === "template" ? found.lang : found.kind === "script" ? found.process : "";
      const on = found.kind === "script" ? found.base.replace("docker.io/library/", "") : "";
      assert.deepEqual([found.kind, is, on], [kind, what, base]);
    });

  test("a Dockerfile does not count where nothing may be built", async () => {
    assert.equal((await guessed({ Dockerfile: "", "a.sh": "" }, false)).kind, "script");
  });

  const refused: [files: Folder, why: RegExp][] = [
    [{}, /what is to run there is not clear.*--process COMMAND/],
    [{ "README.md": "", "data.json": "" }, /what is to run there is not clear/],
    [{ "a.sh": "", "b.sh": "" }, /which of a\.sh, b\.sh is to run/],
    [{ "my script.sh": "" }, /a blank in its name/],
  ];
  for (const [files, why] of refused)
    test(`${Object.keys(files).join(" ") || "nothing"} is not clear`, () => assert.rejects(guessed(files), why));

  const bases: [process: string, base: string][] = [
    ["node server.js", "node:24-alpine"],
    ["/usr/local/bin/python3 -u x", "python:3-alpine"],
    ["./server --port 1", "alpine:3"],
  ];
  for (const [process, base] of bases)
    test(`${process} is run on ${base}`, () => assert.equal(baseFor(process), `docker.io/library/${base}`));
});
