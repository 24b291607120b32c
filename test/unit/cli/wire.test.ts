/**
 * What OpenFaaS' own client sends, as it was recorded (test/cases/cli-wire.json): `nap` with the same arguments, files
 * and environment must send the same requests, and succeed or fail as it does. Where it differs on purpose, a row of
 * `differs` says why.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { suite, test } from "node:test";
import { nap, openPlace, openRecordingServer, type Scripted } from "../../support/nap.ts";
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
  given: { stdin?: string; env?: Record<string, string>; files?: Record<string, string>; server?: Scripted[] };
  observed: Record<string, Observed | string>;
}
const { scenarios }: { scenarios: Scenario[] } = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../cases/cli-wire.json"), "utf8"),
);

/** Commands that nap has. */
const covered =
  /^(login|logout|list|ls|describe|deploy|remove|rm|delete|invoke|logs|secret|namespaces?|version|ready|store|registry-login|generate|scale)$/;

/** Scenario, and why nap does otherwise. A function of the steps makes them what nap does; without it nothing is run. */
const differs: Record<string, string> = {
  "deploy.flags-ignored-when-stack-present": "an image that somebody gives is what they want",
  "deploy.yaml.remote-url": "the recording names a gateway of its own in the file",
  "deploy.yaml.tag-sha": "the recording's commit cannot be made again; build.test.ts has --tag",
  "login.redirect": "a redirect is no proof that the password is right",
  "auth.token-flag-vs-basic": "a token that somebody gives is what they want",
  "auth.token-flag-vs-oauth2": "same",
  "gw.stack-yaml-file": "stack.yaml is found, as by newer clients",
  "list.createdAt-unix-number": "one odd field does not take the list away",
  "list.createdAt-space-format": "same",
  "list.replicas-negative": "same",
  "list.replicas-string": "same",
  "list.labels-nonstring": "same",
  "invoke.301": "redirects of a function are its answer",
  "invoke.base-path": "a gateway below a path stays there",
  "invoke.401-iam-realm": "a token exchange of the commercial gateway",
  "invoke.auth-flag": "same",
  "logs.stack-gateway-not-used": "the stack file names the gateway, as for newer clients",
  "secret.create.replace-409": "there is --replace, as in newer clients",
  "secret.update.file-ns": "files arrive byte for byte in updates too",
  "version.missing-provider": "what is missing is left out",
  "version.missing-version": "same",
  "version.missing-provider-version": "same",
  "version.update-check-offline": "nap looks for no newer version of itself",
  "store.list.env": "the store is named by OPENFAAS_STORE, as for newer clients",
  "store.deploy.platform-case": "an image is found in any case of its platform",
  "registry-login": "a file with passwords is nobody else's to read",
  "registry-login.server-stdin": "same",
  "registry-login.ecr": "same",
  "invoke.header-colon": "headers are spelled so by newer clients",
  "invoke.method-lower": "methods in small letters are understood",
  "invoke.method-head": "HEAD is a method like others",
  "list.json-flag": "there is --json, as in newer clients",
  "gw.flag-equal-to-default-is-ignored": "a gateway that somebody gives is what they want",
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
const isCovered = (s: Scenario) =>
  !(s.id in differs) && !s.id.includes("tls") && latest(s).steps.every(({ argv }) => covered.test(argv[0] ?? ""));

/** nap waits until a function can be called, which takes further requests. */
const unwaited = ({ argv }: Step): string[] => (argv.includes("deploy") ? ["--wait=false"] : []);

suite("nap sends what faas-cli sends", () => {
  for (const scenario of scenarios.filter(isCovered))
    test(scenario.id, async () => {
      const { given } = scenario;
      const { steps, files = {} } = latest(scenario);
      await using dir = await tmpDir();
      await using server = await openRecordingServer(given.server ?? []);
      const cwd = join(dir.path, "cwd");
      const port = new URL(server.url).port;
      const fill = (text: string) =>
        text.replaceAll("{GW}", server.url).replaceAll("{PORT}", port).replaceAll("{CWD}", cwd);
      const place = await openPlace(
        dir.path,
        Object.fromEntries(Object.entries(given.files ?? {}).map(([name, text]) => [name, bytesOf(fill(text))])),
      );
      const env = Object.fromEntries(Object.entries(given.env ?? {}).map(([key, value]) => [key, fill(value)]));
      for (const step of steps) {
        const ran = await nap(place, [...step.argv.map(fill), ...unwaited(step)], {
          env,
          stdin: bytesOf(given.stdin ?? ""),
        });
        const known = step.requests.map((r) => ({ ...r, path: pathOf(r.path), body: bodyOf(r, given.stdin) }));
        const recorded = known.map((r) => essence(r, r.headers.Authorization));
        const sent = server.seen().map((r) => essence(r, r.headers.authorization));
        assert.deepEqual(sent.sort(), recorded.sort(), `${step.argv.join(" ")}: ${ran.stdout}${ran.stderr}`);
        const done = step.exit === 0 && !exitsHonestly.test(scenario.id);
        assert.equal(ran.exit === 0, done, `${step.argv.join(" ")}: ${ran.stdout}${ran.stderr}`);
      }
      for (const [name, file] of Object.entries(files)) {
        const path = name.startsWith("~/") ? join(place.home, name.slice(2)) : join(place.cwd, name);
        const text = await readFile(path, "utf8").catch(() => undefined);
        const unindented = (t: string) => t.replace(/^ +/gm, "");
        assert.equal(text && unindented(text), file ? unindented(fill(file.text)) : undefined, name);
        if (file) assert.equal((await stat(path)).mode & 0o777, Number(file.mode), name);
      }
    });
});
