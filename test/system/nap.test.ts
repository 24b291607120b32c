/** The command line against a real napd: from a stack file to answers, logs and nothing left. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { webImage } from "../support/images.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const up = new AsyncDisposableStack();
let world: World;
let cwd: string;

before(async () => {
  world = up.use(await openWorld());
  await world.start({ "images.pull_policy": "Never", "functions.grace": "100ms", "queue.keep_results": "1h" });
  cwd = `${world.dir}/stack`;
  await mkdir(cwd);
  await writeFile(
    `${cwd}/stack.yaml`,
    `version: 1.0
provider:
  name: openfaas
  gateway: ${world.url}
functions:
  one:
    image: \${IMAGE:-web:1}
    secrets: [token]
    environment: {GREETING: hello}
  two:
    image: web:1
    labels: {com.openfaas.scale.max: 3}
`,
  );
});
after(() => up.disposeAsync());

interface Ran {
  exit: number;
  stdout: string;
  stderr: string;
}

/** nap as a process of its own. */
async function run(args: string[], input = ""): Promise<Ran> {
  return new Promise((resolve) => {
    const entry = `${import.meta.dirname}/../../src/nap.ts`;
    const env = { ...process.env, HOME: world.dir };
    const child = execFile(process.execPath, [entry, ...args], { cwd, env }, (error, stdout, stderr) =>
      resolve({ exit: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    );
    child.stdin!.end(input);
  });
}

async function nap(args: string[], input = ""): Promise<string> {
  const ran = await run(args, input);
  assert.equal(ran.exit, 0, `nap ${args.join(" ")}: ${ran.stdout}${ran.stderr}`);
  return ran.stdout;
}

suite("nap and napd", () => {
  test("a stack is logged in to, deployed, called, read, scaled and removed", async () => {
    const password = await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8");
    const refused = await run(["list"]);
    assert.deepEqual([refused.exit, refused.stdout], [1, ""]);
    assert.match(refused.stderr, /nap login -g/);
    await nap(["login", "-g", world.url, "--password-stdin"], password);

    const archive = await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n");
    assert.match(await nap(["image", "import", archive, "-g", world.url]), /web:1 imported/);
    await nap(["secret", "create", "token", "-g", world.url], "abc\n");
    assert.match(await nap(["secret", "list", "-g", world.url]), /^token /m);

    assert.equal((await run(["diff"])).exit, 1);
    await nap(["deploy", "-f", "stack.yaml"]);
    assert.equal(await nap(["diff"]), "one is as deployed\ntwo is as deployed\n");
    assert.equal(await nap(["list", "-q"]), "one\ntwo\n");
    assert.match(await nap(["describe", "one"]), /^Environment:\n {2}GREETING: hello$/m);
    assert.match(await nap(["ready", "one"]), /is ready/);
    assert.match(await nap(["version"]), /provider +\w+/);

    assert.equal(await nap(["invoke", "one", "-m", "GET"]), "hello\n");
    const called = await run(["invoke", "missing"]);
    assert.deepEqual([called.exit, /answered 404/.test(called.stderr)], [1, true]);

    await world.call("/function/one/cgi-bin/log", { method: "POST", body: "said\n" });
    await eventually(
      () => nap(["logs", "one", "--no-follow"]),
      (text) => /^\S+ said$/m.test(text),
    );

    await nap(["scale", "two", "2"]);
    const two: { replicas: number } = JSON.parse(await nap(["describe", "two", "--json"]));
    assert.equal(two.replicas, 2);

    const wrong = await run(["deploy", "--image", "nothing:1", "--name", "three", "-g", world.url]);
    assert.equal(wrong.exit, 1);
    assert.match(wrong.stderr, /three {2}failed .*nothing/);

    await nap(["remove"]);
    assert.equal(await nap(["list", "-q"]), "");
    await nap(["secret", "remove", "token", "-g", world.url]);
    assert.deepEqual(JSON.parse(await nap(["image", "prune", "--json", "-g", world.url])).length, 1);
    await nap(["logout", "-g", world.url]);
  });

  test("asynchronous calls and schedules are seen and steered", async () => {
    const password = await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8");
    const at = ["-g", world.url];
    await nap(["login", ...at, "--password-stdin"], password);
    await nap(["image", "import", await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hi\n"), ...at]);
    // it refuses POST with 501: every call of the queue and of the clock fails
    const annotations = ["topic=cron-function", "schedule=@yearly", "com.openfaas.retry.codes=501"];
    const given = [...annotations, "com.openfaas.retry.attempts=1"].flatMap((a) => ["--annotation", a]);
    await nap(["deploy", "--image", "web:1", "--name", "tick", ...given, ...at]);

    assert.equal(await nap(["invoke", "tick/cgi-bin/echo", "--async", "--wait", "-d", "hi", ...at]), "hi");
    const id = (await nap(["invoke", "tick", "--async", "-d", "x", ...at])).trim();
    const isDead = () =>
      eventually(
        () => nap(["queue", "list", "tick", "--state", "dead", "-q", ...at]),
        (ids) => ids === `${id}\n`,
      );
    await isDead();
    assert.match(await nap(["queue", "describe", id, ...at]), /^Last status: {2}501$/m);
    assert.match(await nap(["queue", "stats", ...at]), /^tick +0 +0 +1$/m);
    assert.equal(await nap(["queue", "retry", id, ...at]), `${id} queued again\n`);
    await isDead();
    const result = await run(["queue", "result", id, ...at]);
    assert.deepEqual([result.exit, /call \S+ was answered 501/.test(result.stderr)], [1, true], result.stderr);
    assert.equal(await nap(["queue", "drop", "--all", ...at]), `${id} dropped\n`);

    const ran = await run(["cron", "run", "tick", "--wait", ...at]);
    assert.deepEqual([ran.exit, /tick: failed: it answered 501/.test(ran.stderr)], [1, true], ran.stderr);
    const history = JSON.parse(await nap(["cron", "history", "tick", "--json", ...at]));
    assert.deepEqual([history.length, history[0].trigger, history[0].result], [1, "manual", "failed"]);
    assert.match(await nap(["cron", "list", ...at]), /^tick +@yearly +in \d+d +\d+s ago +failed: it answered 501$/m);
    await nap(["remove", "tick", ...at]);
  });
});
