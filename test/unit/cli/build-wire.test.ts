/**
 * What OpenFaaS' own client does with files and docker, as it was recorded (test/cases/cli-wire.json): `nap` with the
 * same arguments and files must leave the same files, ask docker for the same, and succeed or fail as it does. Where
 * it differs on purpose, a row of `differs` says why.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { suite, test } from "node:test";
import { fakeBuilder, type RecordedCall } from "../../support/fake-builder.ts";
import { nap, openPlace, openRecordingServer, type Scripted } from "../../support/nap.ts";
import { commitFiles } from "../../support/template-repository.ts";
import { tmpDir } from "../../support/tmp.ts";

interface Observed {
  steps: { argv: string[]; exit: number; requests: { method: string; path: string; query: string }[] }[];
  docker?: RecordedCall[];
  files?: Record<string, { mode: string; size?: number; text?: string } | null>;
}
interface Scenario {
  id: string;
  given: { env?: Record<string, string>; files?: Record<string, string>; server?: Scripted[]; setup?: string };
  observed: Record<string, Observed | string>;
}
const { scenarios }: { scenarios: Scenario[] } = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../cases/cli-wire.json"), "utf8"),
);
const covered = /^(new|build|push|publish|template|local-run)\./;

/** Scenario, and why nap does otherwise. */
const differs: Record<string, string> = {
  "new.append-stackyaml": "the stack file is stack.yaml, as for newer clients, and can be added to",
  "new.yaml-flag": "-f names the stack file, as for newer clients",
  "build.secrets": "build secrets reach docker, as with newer clients",
  "local-run.print": "to say what would be run removes no container",
  "local-run.print.016": "nor does it build one",
};

const latest = (scenario: Scenario): Observed => {
  let seen: Observed | string = scenario.observed["0.17.0"]!;
  while (typeof seen === "string") seen = scenario.observed[seen.replace("same as ", "")]!;
  return seen;
};

/** The repository that the recordings were made with. */
const repository = {
  "template/zz-http/main.go": "main\n",
  "template/zz-http/Dockerfile": "FROM scratch\n",
  "template/zz-http/template.yml": `language: zz\nfprocess: ./handler\n${"#".repeat(120)}\n`,
  "template/zz-http/function/handler.go": "code\n",
  "template/aa-http/template.yml": "language: aa\n",
  "template/aa-http/function/handler.py": "p\n",
};

/** Newer clients call a new stack file stack.yaml and not NAME.yml. */
const renamed = (file: string) => (/^[\w-]+\.yml$/.test(file) && file !== "stack.yml" ? "stack.yaml" : file);

const filesBelow = async (dir: string): Promise<string[]> =>
  (await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []))
    .filter((e) => e.isFile())
    .map((e) => join(e.parentPath, e.name));

suite("nap makes what faas-cli makes", () => {
  for (const scenario of scenarios.filter((s) => covered.test(s.id) && !(s.id in differs)))
    test(scenario.id, async () => {
      const { given } = scenario;
      const { steps, files = {}, docker = [] } = latest(scenario);
      await using dir = await tmpDir();
      await using server = await openRecordingServer(given.server ?? []);
      const cwd = join(dir.path, "cwd");
      const fill = (text: string) => text.replaceAll("{GW}", server.url).replaceAll("{CWD}", cwd);
      const filled = (all: Record<string, string> = {}) =>
        Object.fromEntries(Object.entries(all).map(([name, text]) => [name, fill(text)]));
      const place = await openPlace(dir.path, filled(given.files));
      if (given.setup) await commitFiles(join(cwd, "trepo"), repository);
      const builder = await fakeBuilder(dir.path);
      const env = { ...builder.env, NAP_BUILDER: "docker", ...filled(given.env) };
      for (const { argv, exit, requests } of steps) {
        const ran = await nap(place, argv.map(fill).map(renamed), { env });
        const said = `${argv.join(" ")}: ${ran.stdout}${ran.stderr}`;
        assert.equal(ran.exit === 0, exit === 0, said);
        const essence = (r: { method: string; path: string; query: string }) => [r.method, r.path, r.query];
        assert.deepEqual(server.seen().map(essence), requests.map(essence), said);
      }
      const wanted = docker.map((call) => ({ ...call, cwd: fill(call.cwd) }));
      assert.deepEqual(await builder.calls(), wanted);

      for (const [name, file] of Object.entries(files)) {
        if (name === "stack.yaml") continue;
        const path = join(cwd, renamed(name));
        const found = await stat(path).catch(() => undefined);
        assert.equal(found !== undefined, file !== null, name);
        if (!file) continue;
        assert.equal(found!.mode & 0o777, Number(file.mode), name);
        if (file.size !== undefined) assert.equal(found!.size, file.size, name);
        if (file.text !== undefined) assert.equal(await readFile(path, "utf8"), fill(file.text), name);
      }
      // where a folder was recorded, it was recorded whole
      for (const folder of ["template", "build"].filter((f) => Object.keys(files).some((n) => n.startsWith(`${f}/`))))
        assert.deepEqual(
          (await filesBelow(join(cwd, folder)))
            .map((path) => path.slice(cwd.length + 1))
            .filter((path) => !path.endsWith("/meta.json"))
            .sort(),
          Object.keys(files)
            .filter((n) => n.startsWith(`${folder}/`))
            .sort(),
        );
    });
});
