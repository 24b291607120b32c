/**
 * What nap makes of gateways that are none, are broken or are gone: every command ends with 1 and one line that names
 * the URL and says what came. And of gateways that are not napd: commands that need napd say so.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { after, suite, test } from "node:test";
import { nap, openPlace, openRecordingServer, type Scripted } from "../../support/nap.ts";
import { tmpDir } from "../../support/tmp.ts";

const up = new AsyncDisposableStack();
after(() => up.disposeAsync());
const dir = up.use(await tmpDir());
const place = await openPlace(dir.path, {
  "s.yaml": "provider: {name: openfaas}\nfunctions: {web: {image: 'web:1'}}\n",
  ".secrets/a": "1",
  "i.tar": "archive",
});

/** Every command that asks a gateway's API, and whether it is for napd alone. */
const commands: readonly { line: string; stdin?: string; napdOnly?: true }[] = [
  { line: "login -s", stdin: "pw" },
  { line: "list" },
  { line: "list -q" },
  { line: "describe web" },
  { line: "deploy --image web:1 --name web" },
  { line: "deploy --image web:1 --name web --dry-run" },
  { line: "deploy -f s.yaml" },
  { line: "diff -f s.yaml" },
  { line: "remove web" },
  { line: "logs web --no-follow" },
  { line: "scale web 2" },
  { line: "ready web --attempts 1" },
  { line: "secret list" },
  { line: "secret apply" },
  { line: "namespace list" },
  { line: "namespace get team" },
  { line: "version --json" },
  { line: "store list --url GATEWAY/functions.json" },
  { line: "store deploy nodeinfo --builtin" },
  { line: "queue list", napdOnly: true },
  { line: "queue describe id", napdOnly: true },
  { line: "queue retry id", napdOnly: true },
  { line: "queue drop --all", napdOnly: true },
  { line: "queue cancel id", napdOnly: true },
  { line: "queue stats", napdOnly: true },
  { line: "queue result id", napdOnly: true },
  { line: "cron list", napdOnly: true },
  { line: "cron describe web", napdOnly: true },
  { line: "cron run web", napdOnly: true },
  { line: "cron history", napdOnly: true },
  { line: "image list", napdOnly: true },
  { line: "image import i.tar", napdOnly: true },
  { line: "image remove i:1", napdOnly: true },
  { line: "image prune", napdOnly: true },
];

const html = { "Content-Type": "text/html" };
const page = "<!doctype html>\n<html><head><title>Sign in</title></head>\n<body>\n</body></html>";
const answers: readonly { says: string; answer: Scripted; stderr?: RegExp; but?: RegExp }[] = [
  {
    says: "a web page",
    answer: { status: 200, headers: html, body: page },
    // what changes something looks at the status alone
    but: /^(deploy|remove|scale|secret apply|queue (retry|drop|cancel)|image remove)/,
    stderr: /a web page \("Sign in"\)|is no function store/,
  },
  { says: "a proxy's error page", answer: { status: 502, headers: html, body: page }, stderr: /502 Bad Gateway/ },
  { says: "somebody's 404 page", answer: { status: 404, headers: html, body: page } },
  {
    says: "a redirect",
    answer: { status: 302, headers: { Location: "https://elsewhere.example/login" } },
    stderr: /points to https:\/\/elsewhere.example\/login/,
  },
  { says: "401", answer: { status: 401, body: "no" }, stderr: /nap login -g http|does not accept this user/ },
  { says: "a sentence", answer: { status: 500, body: "the disk is full" }, stderr: /the disk is full/ },
];

const fill = (line: string, url: string) => line.split(" ").map((word) => word.replace("GATEWAY", url));

/** One line, of nap, and not where in nap something broke. */
function assertOneLine(stderr: string, what: string): void {
  const lines = stderr.trimEnd().split("\n");
  const told = lines.filter((line) => !/^(web|nodeinfo) +failed /.test(line));
  assert.ok(told.length <= 1 || told.every((line) => line.startsWith("nap: ")), `${what}: ${stderr}`);
  assert.doesNotMatch(stderr, /^ +at |fault of nap/m, what);
}

suite("nap and gateways that are none", () => {
  for (const { says, answer, stderr = /./, but } of answers)
    test(`${says} is told in one line by every command`, async () => {
      await using server = await openRecordingServer([answer]);
      for (const { line, stdin = "" } of commands) {
        if (but?.test(line)) continue;
        const ran = await nap(place, fill(line, server.url), { env: { OPENFAAS_URL: server.url }, stdin });
        assert.notEqual(ran.exit, 0, `${line}: ${ran.stdout}`);
        assertOneLine(ran.stderr, line);
        assert.match(ran.stderr, stderr, line);
      }
    });

  const bodies = [
    "",
    "null",
    "17",
    '"text"',
    "{",
    "[1]",
    "[null]",
    '[{"name":7}]',
    "{}",
    '{"labels":[1],"secrets":"x"}',
  ];
  test("JSON of any kind breaks no command", async () => {
    for (const body of bodies) {
      await using server = await openRecordingServer([{ status: 200, body }]);
      for (const { line, stdin = "" } of commands.filter((c) => !/deploy|secret apply/.test(c.line))) {
        const ran = await nap(place, fill(line, server.url), { env: { OPENFAAS_URL: server.url }, stdin });
        assert.doesNotMatch(ran.stderr, /^ +at |fault of nap/m, `${line} and ${body}`);
      }
    }
  });

  test("nobody listens", async () => {
    for (const { line, stdin = "" } of commands.filter((c) => !c.line.startsWith("store list"))) {
      const ran = await nap(place, [...fill(line, ""), "-g", "http://127.0.0.1:1"], { stdin });
      assert.notEqual(ran.exit, 0, line);
      assertOneLine(ran.stderr, line);
      assert.match(ran.stderr, /http:\/\/127.0.0.1:1 cannot be reached: nothing listens there/, line);
    }
  });

  const servers: readonly { says: string; talk: (socket: Socket) => void; args?: string[]; stderr: RegExp }[] = [
    { says: "hangs up", talk: (s) => s.destroy(), stderr: /cannot be reached/ },
    { says: "speaks something else", talk: (s) => s.end("SSH-2.0-x\r\n"), stderr: /does not speak HTTP/ },
    { says: "says nothing", talk: () => {}, args: ["--timeout", "50ms"], stderr: /within 0.05 s \(--timeout\)/ },
    {
      says: "breaks off",
      talk: (s) => void s.once("data", () => s.end("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[")),
      stderr: /cannot be reached/,
    },
  ];
  for (const { says, talk, args = [], stderr } of servers)
    test(`a server that ${says}`, async () => {
      const server = createServer((socket) => talk(socket.on("error", () => {}))).listen(0, "127.0.0.1");
      await once(server, "listening");
      const { port } = server.address() as { port: number };
      const ran = await nap(place, ["list", ...args, "-g", `http://127.0.0.1:${port}`]);
      server.close();
      assert.equal(ran.exit, 1);
      assertOneLine(ran.stderr, says);
      assert.match(ran.stderr, stderr);
    });
});

suite("nap and gateways that are not napd", () => {
  /** Routes of OpenFaaS; everything else is what Go's router says. */
  const foreign: Scripted[] = [
    { status: 200, path: "/system/functions", body: [] },
    { status: 404, body: "404 page not found\n" },
  ];
  for (const { line } of commands.filter((c) => c.napdOnly))
    test(`${line} says that it needs napd`, async () => {
      await using server = await openRecordingServer(foreign);
      const ran = await nap(place, [...line.split(" "), "-g", server.url]);
      assert.equal(ran.exit, 1);
      assert.match(
        ran.stderr,
        /has no \/system\/(queue|queue-stats|cron|images): it is another gateway than napd, or an older one/,
      );
      assertOneLine(ran.stderr, line);
    });

  test("on napd the same answer is about the thing", async () => {
    const absent: Scripted[] = [
      { status: 200, path: "/system/queue", method: "GET", body: [] },
      { status: 200, path: "/system/cron", method: "GET", body: [] },
      { status: 404, body: "there is no such thing" },
    ];
    await using server = await openRecordingServer(absent);
    const env = { OPENFAAS_URL: server.url };
    const call = await nap(place, ["queue", "describe", "id"], { env });
    assert.match(call.stderr, /^nap: the queue has no call id: /);
    const cron = await nap(place, ["cron", "run", "web"], { env });
    assert.match(cron.stderr, /^nap: function web does not exist or has no schedule/);
  });
});

suite("wrong usage ends with 2 and asks nobody", () => {
  const rows: readonly (readonly [args: string[], stderr: RegExp])[] = [
    [["list", "-g", "http://[::1"], /is no URL; write http:/],
    [["list", "-g", "ftp://host"], /is no URL/],
    [["list", "-g", "http://host:99999"], /is no URL/],
    [["list", "-g", "http://user:pw@host"], /run nap login/],
    [["list", "-g", "http://host/?a=1"], /query or fragment/],
    [["list", "--jsn"], /unknown option '--jsn'\n.*Did you mean --json/],
    [["lst"], /unknown command 'lst'\n.*Did you mean one of list, ls/],
    [["queue", "lits"], /unknown command 'lits'\n.*Did you mean list/],
    [["queue", "list", "--state", "lost"], /queued, running or dead/],
    [["queue", "list", "--limit", "0"], /--limit takes 1 to 1000/],
    [["queue", "retry"], /name the calls, or give --all/],
    [["queue", "drop", "id", "--all"], /name the calls, or give --all/],
    [["scale", "web", "x"], /no whole number/],
    [["ready", "--attempts", "0"], /from 1/],
    [["invoke", "web", "--wait"], /--wait needs --async/],
    [["invoke", "web", "--sign", "X"], /--sign and --key go together/],
    [["login", "-s"], /password is empty/],
    [["secret", "create", "s"], /value is empty/],
    [["store", "list", "--url", "nonsense"], /no URL of http/],
    [["store", "list", "--builtin", "--url", "http://x"], /not both/],
    [["logs"], /whose logs/],
    [["remove"], /which function/],
  ];
  for (const [args, stderr] of rows)
    test(args.join(" "), async () => {
      await using server = await openRecordingServer([]);
      const ran = await nap(place, args, { env: { OPENFAAS_URL: server.url } });
      assert.match(ran.stderr, stderr);
      assert.equal(ran.exit, 2, ran.stderr);
      assert.deepEqual(server.seen(), []);
    });
});
