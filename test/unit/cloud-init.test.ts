import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { suite, test } from "node:test";
import { parse } from "yaml";
import { fillIn } from "../vm/discs.ts";

const text = readFileSync(`${import.meta.dirname}/../../cloud-init/user-data.yaml`, "utf8");
const { write_files: files, runcmd } = parse(text) as {
  write_files: { path: string; permissions?: string; content: string }[];
  runcmd: string[];
};
const contentOf = (path: string) => files.find((file) => file.path === path)!.content;

const hasShellcheck = !spawnSync("shellcheck", ["--version"]).error;

suite("cloud-init/user-data.yaml", () => {
  test("is taken by cloud-init, and by providers, of whom some take 16 KB at most", () => {
    assert.match(text, /^#cloud-config\n/);
    assert.ok(Buffer.byteLength(text) < 12_000, "there is room for what users write into it");
  });

  test("its script is one of a plain shell", () => {
    for (const script of runcmd) execFileSync("sh", ["-n"], { input: script });
  });

  test("its script passes shellcheck", { skip: !hasShellcheck && "shellcheck is not here" }, () => {
    for (const script of runcmd) execFileSync("shellcheck", ["--shell=sh", "-"], { input: script });
  });

  test("its variables are lines that a program can fill in", () => {
    const settings = { NAPD_FROM: "/mnt/napd", NAPD_MOUNT: '"-t 9p napd"', NAPD_PASSWORD: "'a $b'" };
    const filled = parse(fillIn(text, settings)).write_files[0].content;
    const show = `${filled}\nprintf '%s|' "$NAPD_FROM" "$NAPD_MOUNT" "$NAPD_PASSWORD" "$NAPD_DOMAIN" "$NAPD_FUNCTIONS"`;
    const said = execFileSync("sh", ["-eu"], { input: show, encoding: "utf8" });
    assert.equal(said, "/mnt/napd|-t 9p napd|a $b||/etc/napd/functions.yaml|");
    assert.throws(() => fillIn(text, { NAPD_UNKNOWN: "" }), /no variable NAPD_UNKNOWN/);
  });

  test("the password is nobody else's to read, and the stack file is where the variables say", () => {
    assert.equal(files[0]!.permissions, "0600");
    assert.ok(parse(contentOf("/etc/napd/functions.yaml")).functions.hello.image);
  });
});
