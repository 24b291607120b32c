import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { pino } from "pino";
import { isAppError } from "../../../../src/base/errors.ts";
import { Credentials, parseDockerConfig } from "../../../../src/host/image/credentials.ts";
import { tmpDir } from "../../../support/tmp.ts";

const base64 = (text: string) => Buffer.from(text).toString("base64");
const login = (username: string, password: string) => ({ kind: "password", username, password });

const rows: [sentence: string, auths: object, host: string, repository: string, found: unknown][] = [
  ["none", {}, "ghcr.io", "a", undefined],
  ["base64", { "ghcr.io": { auth: base64("u:p:q") } }, "ghcr.io", "a", login("u", "p:q")],
  ["base64 with docker's padding", { "ghcr.io": { auth: base64("u:p\0\0") } }, "ghcr.io", "a", login("u", "p")],
  ["plain fields", { "ghcr.io": { username: "u", password: "p" } }, "ghcr.io", "a", login("u", "p")],
  ["an identity token", { "x.io": { identitytoken: "t" } }, "x.io", "a", { kind: "refresh", token: "t" }],
  ["an empty entry", { "ghcr.io": {} }, "ghcr.io", "a", undefined],
  ["another host", { "ghcr.io": { auth: base64("u:p") } }, "gcr.io", "a", undefined],
  ["another port", { "x.io:5000": { auth: base64("u:p") } }, "x.io", "a", undefined],
  [
    "docker.io by its old key",
    { "https://index.docker.io/v1/": { auth: base64("u:p") } },
    "docker.io",
    "library/nginx",
    login("u", "p"),
  ],
  ["a host as an address", { "https://x.io/v2/": { auth: base64("u:p") } }, "x.io", "a", login("u", "p")],
  [
    "the longest path wins",
    { "x.io": { auth: base64("u:1") }, "x.io/team": { auth: base64("u:2") }, "x.io/team/app": { auth: base64("u:3") } },
    "x.io",
    "team/app",
    login("u", "3"),
  ],
  [
    "a path counts below it",
    { "x.io": { auth: base64("u:1") }, "x.io/team": { auth: base64("u:2") } },
    "x.io",
    "team/other/deep",
    login("u", "2"),
  ],
  ["a path counts nowhere else", { "x.io/team": { auth: base64("u:2") } }, "x.io", "teams/app", undefined],
];

suite("registry logins", () => {
  for (const [sentence, auths, host, repository, found] of rows)
    test(sentence, async () => {
      await using tmp = await tmpDir();
      const file = `${tmp.path}/config.json`;
      await writeFile(file, JSON.stringify({ auths }));
      assert.deepEqual(await new Credentials(file, pino({ level: "silent" })).find(host, repository), found);
    });

  test("a file that is not there has no logins, and is read when it comes and when it changes", async () => {
    await using tmp = await tmpDir();
    const file = `${tmp.path}/config.json`;
    const credentials = new Credentials(file, pino({ level: "silent" }));
    assert.equal(await credentials.find("x.io", "a"), undefined);
    await writeFile(file, JSON.stringify({ auths: { "x.io": { auth: base64("u:1") } } }));
    const first = await credentials.find("x.io", "a");
    assert.deepEqual(first, login("u", "1"));
    assert.equal(await credentials.find("x.io", "a"), first, "unchanged: the same object");
    await writeFile(file, JSON.stringify({ auths: { "x.io": { auth: base64("u:22") } } }));
    assert.deepEqual(await credentials.find("x.io", "a"), login("u", "22"));
  });

  for (const [sentence, text] of [
    ["no JSON", 'topsecret{"auths":'],
    ["auth without a colon", JSON.stringify({ auths: { "x.io": { auth: base64("topsecret") } } })],
    ["a number for a password", JSON.stringify({ auths: { "x.io": { username: "topsecret", password: 7 } } })],
  ] as const)
    test(`${sentence}: an error that does not quote the file`, () => {
      assert.throws(
        () => parseDockerConfig("/etc/c.json", text),
        (e) =>
          isAppError(e, "IMAGE_CREDENTIALS") && !JSON.stringify([e.message, e.cause, e.stack]).includes("topsecret"),
      );
    });

  test("credential helpers are named once in a warning", async () => {
    await using tmp = await tmpDir();
    const file = `${tmp.path}/config.json`;
    await writeFile(file, JSON.stringify({ credsStore: "pass", credHelpers: { "gcr.io": "gcloud" }, auths: {} }));
    const lines: string[] = [];
    const credentials = new Credentials(file, pino({}, { write: (line: string) => void lines.push(line) }));
    await credentials.find("gcr.io", "a");
    await credentials.find("gcr.io", "a");
    assert.equal(lines.length, 1);
    assert.deepEqual(JSON.parse(lines[0]!).helpers, ["pass", "gcr.io"]);
  });
});
