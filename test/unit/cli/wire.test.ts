/**
 * What OpenFaaS' own client sends, as it was recorded (test/cases/cli-wire.json): `nap` with the same arguments, files
 * and environment must send the same requests, and succeed or fail as it does. Where it differs on purpose, a row of
 * `differs` says why.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, suite, test } from "node:test";
import { makeCertificate } from "../../support/certificates.ts";
import { nap, openPlace, openRecordingServer, type Scripted, type Seen } from "../../support/nap.ts";
import { tmpDir } from "../../support/tmp.ts";

interface Step {
  argv: string[];
  exit: number;
  requests: { method: string; path: string; query: string; headers: Record<string, string>; body: string }[];
}
interface Observed {
  steps: Step[];
  files?: Record<string, { mode: string; text: string } | null>;
}
interface Scenario {
  id: string;
  given: {
    stdin?: string;
    env?: Record<string, string>;
    files?: Record<string, string>;
    /** Its answers; or a text, for one that speaks TLS. */
    server?: Scripted[] | string;
  };
  observed: Record<string, Observed | string>;
}
const { scenarios }: { scenarios: Scenario[] } = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../cases/cli-wire.json"), "utf8"),
);

/** Scenarios that are replayed elsewhere, or nowhere. */
const notHere: readonly (readonly [id: RegExp, why: string])[] = [
  [/^(template|new|build|push|publish|local-run)\./, "build-wire.test.ts has them, with a repository and a builder"],
  [/^up\./, "the requests and calls of docker are those of build, push and deploy"],
  [/^deploy\.yaml\.tag-sha$/, "the recording's commit cannot be made again; build.test.ts has --tag"],
  [/^invoke\.(401-iam-realm|auth-flag)$/, "a token exchange of the commercial gateway, which no single node has"],
];

/** By scenario: why nap does otherwise, the exit code, and the requests that it makes instead (with credentials). */
const differs: Record<string, readonly [why: string, exit: number | "any", ...requests: string[]]> = {
  "deploy.flags-ignored-when-stack-present": [
    "an image that somebody gives is what they want",
    0,
    "PUT /system/functions",
  ],
  "login.redirect": [
    "a redirect is no proof that the password is right",
    1,
    "GET /system/functions Basic YWRtaW46eA==",
  ],
  "auth.token-flag-vs-basic": ["a token that somebody gives is what they want", 0, "GET /system/functions Bearer JWT"],
  "auth.token-flag-vs-oauth2": ["a token that somebody gives is what they want", 0, "GET /system/functions Bearer JWT"],
  "gw.stack-yaml-file": ["stack.yaml is found, as by newer clients", 0, "GET /system/functions"],
  "list.createdAt-unix-number": ["one odd field does not take the list away", 0, "GET /system/functions"],
  "list.createdAt-space-format": ["one odd field does not take the list away", 0, "GET /system/functions"],
  "list.replicas-negative": ["one odd field does not take the list away", 0, "GET /system/functions"],
  "list.replicas-string": ["one odd field does not take the list away", 0, "GET /system/functions"],
  "list.labels-nonstring": ["one odd field does not take the list away", 0, "GET /system/functions"],
  "invoke.301": ["redirects of a function are its answer", 1, "POST /function/fn"],
  "invoke.base-path": ["a gateway below a path stays there", 0, "POST /base/function/fn"],
  "logs.stack-gateway-not-used": [
    "the stack file names the gateway, as for newer clients",
    0,
    "GET /system/logs?follow=true&name=fn1&tail=-1",
  ],
  "secret.create.replace-409": [
    "there is --replace, as in newer clients",
    0,
    "POST /system/secrets",
    "PUT /system/secrets",
  ],
  "secret.update.file-ns": ["files arrive byte for byte in updates too", 0, "PUT /system/secrets"],
  "version.missing-provider": ["what is missing is left out", 0, "GET /system/info"],
  "version.missing-version": ["what is missing is left out", 0, "GET /system/info"],
  "version.missing-provider-version": ["what is missing is left out", 0, "GET /system/info"],
  "version.update-check-offline": ["nap looks for no newer version of itself", 0, "GET /system/info"],
  "store.list.env": ["the store is named by OPENFAAS_STORE, as for newer clients", 0, "GET /functions.json"],
  "store.deploy.platform-case": [
    "an image is found in any case of its platform",
    0,
    "GET /functions.json",
    "PUT /system/functions",
  ],
  "registry-login": ["a file with passwords is nobody else's to read", 0],
  "registry-login.server-stdin": ["a file with passwords is nobody else's to read", 0],
  "registry-login.ecr": ["a file with passwords is nobody else's to read", 0],
  "invoke.header-colon": ["headers are spelled so by newer clients", 0, "POST /function/fn"],
  "invoke.method-lower": ["methods in small letters are understood", 0, "GET /function/fn"],
  "invoke.method-head": ["HEAD is a method like others", 0, "HEAD /function/fn"],
  "list.json-flag": ["there is --json, as in newer clients", 0, "GET /system/functions"],
  "gw.flag-equal-to-default-is-ignored": ["a gateway that somebody gives is what they want", "any"],
  "legacy-flags": ["newer clients know no flags with one dash either", 2],
};

/** Recorded as success, although the gateway refused. */
const exitsHonestly = /^secret\.(create|update)\.[45]/;

const latest = (scenario: Scenario): Observed => {
  let seen: Observed | string = scenario.observed["0.17.0"]!;
  while (typeof seen === "string") seen = scenario.observed[seen.replace("same as ", "")]!;
  return seen;
};
/** Without the default namespace behind a function's name, which nap leaves to the gateway to know. */
const pathOf = (path: string) => path.replace(/^(\/(?:async-)?function\/.+)\.openfaas-fn$/, "$1");
/** Standard input that is no text was recorded as base64. */
const bodyOf = ({ method, body }: { method: string; body: string }, stdin = "") =>
  method === "POST" && stdin.startsWith("<binary ") ? bytesOf(stdin).toString() : body;
const bytesOf = (text: string) => {
  const hex = /^<binary ([0-9a-f]+)>$/.exec(text)?.[1];
  return hex === undefined ? Buffer.from(text) : Buffer.from(hex, "hex");
};
/** What must be the same; no credentials are sent where that client sends empty ones, and times are not compared. */
const essence = (r: { method: string; path: string; query: string; body: string }, authorization: unknown) => [
  r.method,
  r.path,
  r.query.replace(/since=(<NOW[^&]*|\d{4}-[^&+]*Z)(?=&)/, "since=TIME"),
  // one spelling of the same JSON
  r.body.startsWith("{") && r.path.startsWith("/system/") ? JSON.stringify(JSON.parse(r.body)) : r.body,
  authorization === "Bearer" ? undefined : authorization,
];
const isHere = ({ id }: Scenario) => !notHere.some(([pattern]) => pattern.test(id));

/** nap waits until a function can be called, and asks for the gateway's architecture: both take further requests. */
const withoutExtras = ({ argv }: Step): string[] => [
  ...(argv.includes("deploy") ? ["--wait=false"] : []),
  ...(argv[0] === "store" && argv[1] === "deploy" && !argv.includes("--platform") ? ["--platform", "x86_64"] : []),
];

interface Replayed {
  step: Step;
  exit: number;
  told: string;
  requests: Seen[];
}

const certificates = await tmpDir();
after(() => certificates[Symbol.asyncDispose]());
const certificate = makeCertificate(certificates.path);

/** Runs the steps of a scenario, and hands over what came of each, and the place when all are done. */
async function replay({ given, ...scenario }: Scenario, check: (ran: Replayed) => void): Promise<Record<string, File>> {
  const { steps, files = {} } = latest({ given, ...scenario });
  await using dir = await tmpDir();
  const speaksTls = typeof given.server === "string";
  const script = typeof given.server === "string" ? [{ status: 200, body: [] }] : given.server;
  await using server = await openRecordingServer(script ?? [], speaksTls ? certificate : undefined);
  const cwd = join(dir.path, "cwd");
  const { port, host } = new URL(server.url);
  const fill = (text: string) =>
    text
      .replaceAll("{GW}", server.url)
      .replaceAll("{PORT}", port)
      .replaceAll("{GWHOST}", host)
      .replaceAll("{CWD}", cwd);
  const place = await openPlace(
    dir.path,
    Object.fromEntries(Object.entries(given.files ?? {}).map(([name, text]) => [name, bytesOf(fill(text))])),
  );
  const env = Object.fromEntries(Object.entries(given.env ?? {}).map(([key, value]) => [key, fill(value)]));
  for (const step of steps) {
    const args = [...step.argv.map(fill), ...withoutExtras(step)];
    const ran = await nap(place, args, { env, stdin: bytesOf(given.stdin ?? "") });
    const told = `${step.argv.join(" ")}: ${ran.stdout}${ran.stderr}`;
    check({ step, exit: ran.exit, told, requests: server.seen() });
  }
  const found: Record<string, File> = {};
  for (const [name, file] of Object.entries(files)) {
    const path = name.startsWith("~/") ? join(place.home, name.slice(2)) : join(place.cwd, name);
    const text = await readFile(path, "utf8").catch(() => undefined);
    const mode = text === undefined ? undefined : (await stat(path)).mode & 0o777;
    found[name] = { text, mode, wanted: file && { text: fill(file.text), mode: Number(file.mode) } };
  }
  return found;
}

interface File {
  text: string | undefined;
  mode: number | undefined;
  wanted: { text: string; mode: number } | null;
}

const asText = ({ method, path, query, headers: { authorization } }: Seen): string =>
  `${method} ${path}${query && `?${query}`}${authorization ? ` ${authorization}` : ""}`;

suite("nap sends what faas-cli sends", () => {
  for (const scenario of scenarios.filter((s) => isHere(s) && !(s.id in differs)))
    test(scenario.id, async () => {
      const { given } = scenario;
      const files = await replay(scenario, ({ step, exit, told, requests }) => {
        const known = step.requests.map((r) => ({ ...r, path: pathOf(r.path), body: bodyOf(r, given.stdin) }));
        const recorded = known.map((r) => essence(r, r.headers.Authorization));
        const sent = requests.map((r) => essence(r, r.headers.authorization));
        assert.deepEqual(sent.sort(), recorded.sort(), told);
        const done = step.exit === 0 && !exitsHonestly.test(scenario.id);
        assert.equal(exit === 0, done, told);
      });
      const unindented = (t: string) => t.replace(/^ +/gm, "");
      for (const [name, { text, mode, wanted }] of Object.entries(files)) {
        assert.equal(text && unindented(text), wanted ? unindented(wanted.text) : undefined, name);
        if (wanted) assert.equal(mode, wanted.mode, name);
      }
    });

  for (const [id, [why, exit, ...requests]] of Object.entries(differs))
    test(`${id}: ${why}`, async () => {
      const scenario = scenarios.find((s) => s.id === id);
      assert.ok(scenario, "there is such a scenario");
      let [lastExit, sent]: [number, string[]] = [0, []];
      await replay(scenario, (ran) => {
        lastExit = ran.exit;
        sent = [...sent, ...ran.requests.map(asText)];
      });
      assert.deepEqual(sent, requests);
      if (exit !== "any") assert.equal(lastExit, exit);
    });

  test("no scenario is forgotten", () => {
    for (const [pattern] of notHere)
      assert.ok(
        scenarios.some(({ id }) => pattern.test(id)),
        String(pattern),
      );
    const elsewhere = scenarios.filter((s) => !isHere(s));
    assert.equal(scenarios.length, 306);
    assert.deepEqual(
      elsewhere.filter(({ id }) => id in differs).map(({ id }) => id),
      [],
    );
  });
});
