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
const covered = /^(login|logout|list|ls|describe)$/;

/** Scenario, and why nap does otherwise. A function of the steps makes them what nap does; without it nothing is run. */
const differs: Record<string, string> = {
  "login.redirect": "a redirect is no proof that the password is right",
  "auth.token-flag-vs-basic": "a token that somebody gives is what they want",
  "auth.token-flag-vs-oauth2": "same",
  "gw.stack-yaml-file": "stack.yaml is found, as by newer clients",
  "list.createdAt-unix-number": "one odd field does not take the list away",
  "list.createdAt-space-format": "same",
  "list.replicas-negative": "same",
  "list.replicas-string": "same",
  "list.labels-nonstring": "same",
  "list.json-flag": "there is --json, as in newer clients",
  "gw.flag-equal-to-default-is-ignored": "a gateway that somebody gives is what they want",
};

const latest = (scenario: Scenario): Observed => {
  let seen: Observed | string = scenario.observed["0.17.0"]!;
  while (typeof seen === "string") seen = scenario.observed[seen.replace("same as ", "")]!;
  return seen;
};
const isCovered = (s: Scenario) =>
  !(s.id in differs) && !s.id.includes("tls") && latest(s).steps.every(({ argv }) => covered.test(argv[0] ?? ""));

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
      const binary = (text: string) => {
        const hex = /^<binary ([0-9a-f]+)>$/.exec(text)?.[1];
        return hex === undefined ? fill(text) : Buffer.from(hex, "hex");
      };
      const place = await openPlace(
        dir.path,
        Object.fromEntries(Object.entries(given.files ?? {}).map(([name, text]) => [name, binary(text)])),
      );
      const env = Object.fromEntries(Object.entries(given.env ?? {}).map(([key, value]) => [key, fill(value)]));
      for (const step of steps) {
        const ran = await nap(place, step.argv.map(fill), { env, stdin: given.stdin ?? "" });
        const seen = server.seen();
        const essence = (r: Step["requests"][number]) => [
          r.method,
          r.path,
          r.query,
          r.body,
          r.headers.Authorization === "Bearer" ? undefined : r.headers.Authorization,
        ];
        assert.deepEqual(
          seen.map((r) => [r.method, r.path, r.query, r.body, r.headers.authorization]).sort(),
          step.requests.map(essence).sort(),
          `${step.argv.join(" ")}: ${ran.stdout}${ran.stderr}`,
        );
        assert.equal(ran.exit === 0, step.exit === 0, `${step.argv.join(" ")}: ${ran.stdout}${ran.stderr}`);
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
