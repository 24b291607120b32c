/** What people see of nap, and what is its own: the rest is in wire.test.ts. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { nap, openPlace, openRecordingServer, type RunOptions, type Scripted } from "../../support/nap.ts";
import { tmpDir } from "../../support/tmp.ts";

const web = {
  name: "web",
  image: "registry.example/a-rather-long/path/web:1",
  namespace: "openfaas-fn",
  envVars: { A: "1" },
  labels: { team: "blue" },
  annotations: {},
  invocationCount: 7,
  replicas: 1,
  availableReplicas: 1,
  createdAt: "2026-03-01T12:00:00Z",
  state: "Asleep",
};
const stack = `provider: {name: openfaas, gateway: "GATEWAY"}
functions:
  web:
    image: registry.example/a-rather-long/path/web:1
    environment: {A: "1"}
    labels: {team: blue}
  api:
    image: api:2
`;

interface Row {
  says: string;
  args: string[];
  server?: Scripted[];
  files?: Record<string, string>;
  options?: RunOptions;
  exit?: number;
  stdout?: string | RegExp;
  stderr?: string | RegExp;
  /** Of the requests: method, path with query, body. */
  requests?: string[];
}

const listed: Scripted[] = [{ status: 200, body: [web] }];
const refusing: Scripted[] = [{ status: 400, body: "namespace x is not valid" }];
const logLine = `${JSON.stringify({ name: "web", instance: "web.1.0", timestamp: "2026-03-01T12:00:00Z", text: "a\x1b[2Jb\tc\x9b" })}\n`;
const logged: Scripted[] = [{ status: 200, body: logLine }];

const queued = {
  ...{ callId: "id-1", function: "web", namespace: "fn", kind: "call", state: "queued", attempts: 1, bytes: 3 },
  ...{ target: "/", createdAt: "2026-01-01T00:00:00Z", dueAt: "2026-01-01T00:00:00Z", lastStatus: 503 },
};
const run = {
  ...{ callId: "run-1", trigger: "schedule", result: "failed", status: 500, error: null, duration: 0.5 },
  ...{ scheduledAt: "2026-01-01T00:00:00.000Z", startedAt: "2026-01-01T00:00:00.002Z" },
};
const tick = {
  ...{ name: "tick", namespace: "fn", overlap: "allow", missed: "skip", async: false, errors: [], runs: [run] },
  schedules: [{ expression: "@hourly", timeZone: null, next: "2026-01-01T00:00:00Z" }],
};

const rows: Row[] = [
  {
    says: "list is a table",
    args: ["list"],
    server: listed,
    stdout: "FUNCTION  INVOCATIONS  REPLICAS  STATE\nweb                 7         1  Asleep\n",
  },
  {
    says: "a table fits its terminal",
    args: ["list", "-v"],
    server: listed,
    options: { terminal: 72, env: { NO_COLOR: "1" } },
    stdout: /^(.{1,72}\n){2}$/,
  },
  {
    says: "a terminal gets colours",
    args: ["list"],
    server: listed,
    options: { terminal: 80 },
    stdout: /^.\[1mFUNCTION/,
  },
  {
    says: "--json is what the gateway says",
    args: ["list", "--json"],
    server: listed,
    stdout: `${JSON.stringify([web], null, 2)}\n`,
  },
  {
    says: "the gateway's words are shown, with its status",
    args: ["list", "-n", "x"],
    server: refusing,
    exit: 1,
    stderr: "nap: namespace x is not valid (status 400)\n",
  },
  { says: "401 says what to do", args: ["list"], server: [{ status: 401 }], exit: 1, stderr: /run nap login -g http/ },
  { says: "a command that is none is wrong usage", args: ["bogus"], exit: 2, stderr: /unknown command/ },
  { says: "so is a flag", args: ["list", "--bogus"], exit: 2, stderr: /unknown option/ },
  { says: "--help is no failure", args: ["--help"], exit: 0, stdout: /deploy/ },
  { says: "help of a command has its flags", args: ["help", "logs"], exit: 0, stdout: /--since <duration>/ },
  {
    says: "flags may stand before the command",
    args: ["-f", "s.yaml", "diff"],
    files: { "s.yaml": stack },
    server: listed,
    exit: 1,
    stdout: /web is as deployed\napi is not deployed\n/,
  },
  {
    says: "diff says what differs",
    args: ["diff", "--filter", "web"],
    files: { "stack.yaml": stack.replace("blue", "red") },
    server: listed,
    exit: 1,
    stdout: "web differs\n  - labels.team: blue\n  + labels.team: red\n",
  },
  {
    says: "diff finds nothing",
    args: ["diff", "--filter", "web"],
    files: { "stack.yaml": stack },
    server: listed,
    exit: 0,
  },
  {
    says: "diff without a gateway's answer is trouble",
    args: ["diff"],
    files: { "stack.yaml": stack },
    server: refusing,
    exit: 2,
  },
  {
    says: "--dry-run deploys nothing",
    args: ["deploy", "--dry-run"],
    files: { "stack.yaml": stack },
    server: listed,
    stdout: "web is as deployed\napi is not deployed\n",
    requests: ["GET /system/functions "],
  },
  {
    says: "a deploy waits until the function can be called",
    args: ["deploy", "--image", "web:1", "--name", "web"],
    server: [
      { status: 202, method: "PUT" },
      { status: 200, body: { ...web, state: "Deploying", availableReplicas: 0 }, times: 2 },
      { status: 200, body: web },
    ],
    stderr: /^web {2}ready http:.*\/function\/web \(updated, /,
    requests: [
      'PUT /system/functions {"service":"web","image":"web:1","labels":{},"annotations":{}}',
      ...Array(3).fill("GET /system/function/web?usage=1 "),
    ],
  },
  {
    says: "a deploy that fails afterwards is told with the reason",
    args: ["deploy", "--image", "web:1", "--name", "web", "--json"],
    server: [
      { status: 202, method: "PUT" },
      { status: 200, body: { ...web, state: "Failed", reason: "it ends with 1" } },
    ],
    exit: 1,
    stdout: /"error": "it ends with 1"/,
    stderr: /web {2}failed it ends with 1\nnap: 1 of 1 not deployed: web\n$/,
  },
  {
    says: "control characters of logs do nothing to a terminal",
    args: ["logs", "web", "--no-follow"],
    server: logged,
    options: { terminal: 80, env: { NO_COLOR: "1" } },
    stdout: "2026-03-01T12:00:00Z a\\x1b[2Jb\tc\\x9b\n",
    requests: ["GET /system/logs?follow=false&name=web&tail=-1 "],
  },
  {
    says: "a program gets logs as they are",
    args: ["logs", "web"],
    server: logged,
    stdout: "2026-03-01T12:00:00Z a\x1b[2Jb\tc\x9b\n",
  },
  {
    says: "--tail takes a number, --instance an id",
    args: ["logs", "web", "-f", "--tail", "5", "--instance", "web.1.0"],
    server: logged,
    requests: ["GET /system/logs?follow=true&instance=web.1.0&name=web&tail=5 "],
  },
  {
    says: "scale asks for a number",
    args: ["scale", "web", "3", "-n", "dev"],
    server: [{ status: 202 }],
    stdout: "web scaled to 3\n",
    requests: ['POST /system/scale-function/web {"serviceName":"web","replicas":3,"namespace":"dev"}'],
  },
  { says: "scale takes no words", args: ["scale", "web", "many"], exit: 2 },
  {
    says: "an answer that is an error keeps its body and fails",
    args: ["invoke", "web", "-d", "x", "-H", "X-A: 1"],
    server: [{ status: 500, body: "broken" }],
    exit: 1,
    stdout: "broken",
    stderr: "nap: web answered 500 Internal Server Error\n",
  },
  {
    says: "a secret that exists is told",
    args: ["secret", "create", "s", "--from-literal", "v"],
    server: [{ status: 409 }],
    exit: 1,
    stderr: /--replace/,
  },
  {
    says: "secret apply makes and changes",
    args: ["secret", "apply"],
    files: { ".secrets/a": "1", ".secrets/b": "2" },
    server: [{ status: 200, method: "GET", body: [{ name: "a" }] }, { status: 202 }],
    stdout: "secret a updated\nsecret b created\n",
    requests: [
      "GET /system/secrets ",
      'PUT /system/secrets {"name":"a","value":"1","rawValue":"MQ=="}',
      'POST /system/secrets {"name":"b","value":"2","rawValue":"Mg=="}',
    ],
  },
  {
    says: "an archive is sent as it is",
    args: ["image", "import", "i.tar", "--name", "web:1"],
    files: { "i.tar": "archive" },
    server: [{ status: 201, body: [{ name: "docker.io/library/web:1" }] }],
    stdout: "docker.io/library/web:1 imported\n",
    requests: ["POST /system/images?name=web%3A1 archive"],
  },
  {
    says: "images are a table",
    args: ["image", "list"],
    server: [{ status: 200, body: [{ name: "i:1", size: 1048576, usedBy: ["a", "b"] }] }],
    stdout: "IMAGE  SIZE     USED BY\ni:1    1.0 MiB  a, b\n",
  },
  {
    says: "generate writes objects",
    args: ["generate", "--filter", "web"],
    files: { "stack.yaml": stack },
    stdout: `---
apiVersion: openfaas.com/v1
kind: Function
metadata:
  name: web
  namespace: openfaas-fn
spec:
  name: web
  image: registry.example/a-rather-long/path/web:1
  environment:
    A: "1"
  labels:
    team: blue
`,
  },
  {
    says: "a table of wide characters is straight",
    args: ["list"],
    server: [
      {
        status: 200,
        body: [
          { ...web, name: "日本" },
          { ...web, name: "e\u0301a" },
        ],
      },
    ],
    stdout:
      "FUNCTION  INVOCATIONS  REPLICAS  STATE\ne\u0301a                  7         1  Asleep\n日本                7         1  Asleep\n",
  },
  {
    says: "wide characters are cut where they do not fit",
    args: ["list"],
    server: [{ status: 200, body: [{ ...web, name: "日本語の関数の長い名前" }] }],
    options: { terminal: 45, env: { NO_COLOR: "1" } },
    stdout: "FUNCTION        INVOCATIONS  REPLICAS  STATE\n日本語の関数…             7         1  Asleep\n",
  },
  {
    says: "NO_COLOR takes colours away",
    args: ["list"],
    server: listed,
    options: { terminal: 80, env: { NO_COLOR: "1" } },
    stdout: /^FUNCTION/,
  },
  {
    says: "FORCE_COLOR puts them into a pipe",
    args: ["list"],
    server: listed,
    options: { env: { FORCE_COLOR: "1", NO_COLOR: "1" } },
    stdout: /^.\[1mFUNCTION/,
  },
  {
    says: "FORCE_COLOR=0 takes them away",
    args: ["list"],
    server: listed,
    options: { terminal: 80, env: { FORCE_COLOR: "0" } },
    stdout: /^FUNCTION/,
  },
  {
    says: "FAAS_DEBUG tells the requests, without credentials",
    args: ["list", "-k", "SECRET"],
    server: listed,
    options: { env: { FAAS_DEBUG: "1" } },
    stderr: /^GET http:\/\/127\.0\.0\.1:\d+\/system\/functions: 200, \d+ ms\n$/,
  },
  {
    says: "remove tells as JSON what became of each",
    args: ["remove", "web", "api", "--json"],
    server: [{ status: 202, times: 1 }, { status: 404 }],
    exit: 1,
    stdout: /"status": "removed".*"status": "failed",\n {4}"error": "function \w+ does not exist"/s,
  },
  {
    says: "scale tells as JSON what it did",
    args: ["scale", "web", "3", "--json"],
    server: [{ status: 202 }],
    stdout: `{\n  "name": "web",\n  "replicas": 3\n}\n`,
  },
  {
    says: "a secret that is no text is sent byte for byte",
    args: ["secret", "create", "s"],
    options: { stdin: Buffer.from([0xff, 0x0a]) },
    server: [{ status: 202 }],
    requests: ['POST /system/secrets {"name":"s","value":"\ufffd","rawValue":"/wo="}'],
  },
  {
    says: "invoke --async tells the call's id",
    args: ["invoke", "web", "--async", "-d", "x"],
    server: [{ status: 202, headers: { "X-Call-Id": "id-1" } }],
    stdout: "id-1\n",
    requests: ["POST /async-function/web x"],
  },
  {
    says: "invoke --async --wait shows the result",
    args: ["invoke", "web", "--async", "--wait", "-d", "x"],
    server: [
      { status: 202, method: "POST", headers: { "X-Call-Id": "id-1" } },
      { status: 202, path: "/system/queue/id-1/result", body: [queued], times: 2 },
      { status: 200, headers: { "X-Function-Status": "200" }, body: "done" },
    ],
    stdout: "done",
    requests: ["POST /async-function/web x", ...Array(3).fill("GET /system/queue/id-1/result ")],
  },
  {
    says: "a result that is none ends with 1",
    args: ["queue", "result", "id-1", "--json"],
    server: [{ status: 200, headers: { "X-Function-Status": "500", "X-Duration-Seconds": "0.25" }, body: "bad" }],
    exit: 1,
    stdout: `{\n  "callId": "id-1",\n  "status": 500,\n  "seconds": 0.25,\n  "body": "bad"\n}\n`,
    stderr: "nap: call id-1 was answered 500\n",
  },
  {
    says: "invoke --json has status, headers and body",
    args: ["invoke", "web", "--json", "-d", ""],
    server: [{ status: 200, headers: { "X-A": "1" }, body: "hi" }],
    stdout: /^\{\n {2}"status": 200,\n {2}"headers": \{\n {4}"x-a": "1",.*"body": "hi"\n\}\n$/s,
  },
  {
    says: "the queue is a table",
    args: ["queue", "list", "web", "-n", "dev"],
    server: [{ status: 200, body: [queued, { ...queued, callId: "id-2", kind: "callback", state: "dead" }] }],
    stdout:
      /^CALL {2}FUNCTION {8}STATE {3}TRIES {2}AGE +LAST\nid-1 {2}web {13}queued {6}1 {2}\d+\w {2}status 503, next in 0s\nid-2 {2}web \(callback\) {2}dead/,
    requests: ["GET /system/queue?function=web&limit=100&namespace=dev "],
  },
  {
    says: "queue describe has all of a call",
    args: ["queue", "describe", "id-1"],
    server: [{ status: 200, body: [queued] }],
    stdout:
      /^Call: {9}id-1\nKind: {9}call\nFunction: {5}web\.fn\nState: {8}queued\nAttempts: {5}1\nLast status: {2}503\n/,
    requests: ["GET /system/queue/id-1 "],
  },
  {
    says: "queue retry of all goes through the dead ones",
    args: ["queue", "retry", "--all", "--function", "web"],
    server: [{ status: 200, method: "GET", body: [{ ...queued, state: "dead" }] }, { status: 202 }],
    stdout: "id-1 queued again\n",
    requests: ["GET /system/queue?function=web&limit=1000&state=dead ", "POST /system/queue/id-1/retry "],
  },
  {
    says: "queue drop drops nothing that is not given up",
    args: ["queue", "drop", "id-1"],
    server: [{ status: 200, method: "GET", body: [queued] }, { status: 202 }],
    exit: 1,
    stderr: "nap: call id-1: it is queued; nap queue cancel id-1 removes it\n",
    requests: ["GET /system/queue/id-1 "],
  },
  {
    says: "queue cancel ends what waits",
    args: ["queue", "cancel", "id-1"],
    server: [{ status: 200, method: "GET", body: [queued] }, { status: 202 }],
    stdout: "id-1 cancelled\n",
    requests: ["GET /system/queue/id-1 ", "DELETE /system/queue/id-1 "],
  },
  {
    says: "queue stats counts",
    args: ["queue", "stats"],
    server: [
      {
        status: 200,
        path: "/system/queue-stats",
        body: [{ function: "web", namespace: "fn", kind: "call", queued: 7, running: 1, dead: 2, oldestAt: null }],
      },
    ],
    stdout: /^FUNCTION {2}QUEUED {2}RUNNING {2}DEAD {2}OLDEST\nweb {12}7 {8}1 {5}2\n$/,
  },
  {
    says: "schedules are a table",
    args: ["cron", "list"],
    server: [{ status: 200, body: [tick] }],
    stdout:
      /^FUNCTION {2}SCHEDULE {2}NEXT {3}LAST {6}RESULT\ntick {6}@hourly {3}in 0s {2}\d+d ago {2}failed: status 500\n$/,
  },
  {
    says: "cron run --wait fails with the run",
    args: ["cron", "run", "tick", "--wait"],
    server: [
      { status: 202, method: "POST", path: "/system/cron/tick/run", body: { ...run, result: "running" } },
      { status: 200, path: "/system/cron", body: [tick] },
    ],
    exit: 1,
    stderr: "nap: tick: failed: status 500; nap logs tick may say more\n",
  },
  {
    says: "cron history is a table of runs",
    args: ["cron", "history", "tick"],
    server: [{ status: 200, body: [tick] }],
    stdout:
      /^FUNCTION {2}TIME +BY +RESULT +TOOK +CALL\ntick +2026-01-01T00:00:00\.002Z {2}schedule +failed: status 500 +0\.5 s +run-1\n$/,
  },
  {
    says: "the store that comes with nap can be searched",
    args: ["store", "search", "sha-512", "--builtin", "--platform", "linux/arm64"],
    stdout: /^FUNCTION {2}AUTHOR +DESCRIPTION\nshasum +openfaas +SHA-512\n$/,
    requests: [],
  },
  {
    says: "a function of the store is deployed for the gateway's machine",
    args: ["store", "deploy", "env", "--builtin", "--wait=false"],
    server: [{ status: 200, path: "/system/info", body: { arch: "arm64" } }, { status: 202 }],
    requests: [
      "GET /system/info ",
      'PUT /system/functions {"service":"env","image":"ghcr.io/openfaas/alpine:latest","envProcess":"env","labels":{},"annotations":{}}',
    ],
  },
  { says: "completion knows the commands", args: ["completion", "bash"], stdout: /words="login logout list / },
];

suite("nap", () => {
  for (const row of rows)
    test(row.says, async () => {
      await using dir = await tmpDir();
      await using server = await openRecordingServer(row.server ?? []);
      const files = Object.entries(row.files ?? {}).map(([name, text]) => [name, text.replace("GATEWAY", server.url)]);
      const place = await openPlace(dir.path, Object.fromEntries(files));
      const env = { OPENFAAS_URL: server.url, ...row.options?.env };
      const ran = await nap(place, row.args, { ...row.options, env });
      const told = `exit ${ran.exit}\n${ran.stdout}\n${ran.stderr}`;
      assert.equal(ran.exit, row.exit ?? 0, told);
      for (const stream of ["stdout", "stderr"] as const) {
        const wanted = row[stream];
        if (typeof wanted === "string") assert.equal(ran[stream], wanted);
        else if (wanted) assert.match(ran[stream], wanted);
      }
      const requests = server.seen().map((r) => `${r.method} ${r.path}${r.query && `?${r.query}`} ${r.body}`);
      if (row.requests) assert.deepEqual(requests, row.requests, told);
    });

  const completed: readonly (readonly [line: string, words: string])[] = [
    ["nap q", "queue"],
    ["nap queue ", "list describe retry drop cancel stats result"],
    ["nap queue list --st", "--state"],
    ["nap queue retry ", "id-1"],
    ["nap rm w", "web"],
    ["nap store search --b", "--builtin"],
  ];
  test("bash completes commands, flags and names", async () => {
    await using dir = await tmpDir();
    const { stdout: script } = await nap(await openPlace(dir.path), ["completion", "bash"]);
    const stub = 'nap() { case "$*" in "list -q") echo web api ;; "queue list -q") echo id-1 ;; esac; }';
    const asking = completed.map(([line]) => {
      const words = line.split(" ").map((word) => `"${word}"`);
      return `COMP_WORDS=(${words.join(" ")}); COMP_CWORD=${words.length - 1}; _nap; echo "\${COMPREPLY[*]}"`;
    });
    const { stdout } = await promisify(execFile)("bash", ["-c", [script, stub, ...asking].join("\n")]);
    assert.deepEqual(
      stdout.trimEnd().split("\n"),
      completed.map(([, words]) => words),
    );
  });

  test("logins survive another client's spelling, and a file that was open to others is closed", async () => {
    await using dir = await tmpDir();
    await using server = await openRecordingServer([{ status: 200, body: [] }]);
    const text = `# ours\nauths:\n    - gateway: https://other\n      auth: oauth2\n      token: T\n      options:\n        - {name: a, value: b}\n`;
    const place = await openPlace(dir.path, { "~/.openfaas/config.yml": text });
    const file = join(place.home, ".openfaas/config.yml");
    await writeFile(file, text, { mode: 0o644 });
    const env = { OPENFAAS_URL: server.url };
    assert.equal((await nap(place, ["login", "-s"], { env, stdin: "pw\n" })).exit, 0);
    assert.equal((await nap(place, ["list"], { env })).exit, 0);
    assert.equal(server.seen().at(-1)?.headers.authorization, "Basic YWRtaW46cHc=");
    assert.equal((await nap(place, ["logout"], { env })).exit, 0);
    assert.equal((await nap(place, ["logout", "-g", "https://other"])).exit, 0);
    assert.equal((await stat(file)).mode & 0o777, 0o600);
  });
});
