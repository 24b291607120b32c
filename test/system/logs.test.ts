/** What functions say, as clients of /system/logs read it: real functions, a real shim, napd stopped and started. */
import assert from "node:assert/strict";
import type { Stats } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { webImage } from "../support/images.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

interface Line {
  name: string;
  namespace: string;
  instance: string;
  timestamp: string;
  text: string;
}

const parse = (body: string): Line[] =>
  body
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line));

suite("logs", () => {
  const up = new AsyncDisposableStack();
  const settings = { "images.pull_policy": "Never", "logs.max_file": "2Mi" };
  let world: World;
  let clean: string[];

  before(async () => {
    world = up.use(await openWorld());
    await world.start(settings);
    await world.import(await webImage(`${world.dir}/web.tar`, "docker.io/library/web:1", "hello\n"));
    clean = (await world.traces()).filter((trace) => trace.startsWith("log "));
  });
  after(() => up.disposeAsync());

  async function deployed(method: "POST" | "PUT", service: string, more: object = {}): Promise<void> {
    const answer = await world.api(method, "/system/functions", { service, image: "web:1", ...more });
    assert.equal(answer.status, 202, answer.text);
  }

  /** Says something on standard error. */
  async function say(service: string, body: string | Uint8Array<ArrayBuffer>): Promise<void> {
    const answer = await world.call(`/function/${service}/cgi-bin/log`, { method: "POST", body });
    assert.equal(answer.text, "logged\n");
  }

  async function read(query: string): Promise<Line[]> {
    const answer = await world.api("GET", `/system/logs?${query}`);
    assert.deepEqual([answer.status, answer.headers.get("content-type")], [200, "application/x-ndjson"], answer.text);
    return parse(answer.text);
  }

  const texts = async (query: string) => (await read(query)).map((line) => line.text);

  /** Lines as they come; the connection is closed on disposal. */
  async function follow(query: string) {
    const leave = new AbortController();
    const password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
    const response = await fetch(`${world.url}/system/logs?follow=true&${query}`, {
      headers: { authorization: `Basic ${btoa(`admin:${password}`)}` },
      signal: leave.signal,
    });
    assert.equal(response.status, 200);
    const lines: Line[] = [];
    let rest = "";
    const ended = (async () => {
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        const whole = (rest + chunk).split("\n");
        rest = whole.pop()!;
        lines.push(...whole.map((line) => JSON.parse(line)));
      }
    })();
    const ending = ended.then(
      () => "in order",
      () => "cut off",
    );
    const until = (what: (texts: string[]) => boolean) => eventually(async () => lines.map((line) => line.text), what);
    return {
      lines,
      ending,
      until,
      async [Symbol.asyncDispose]() {
        leave.abort();
        await ending;
      },
    };
  }

  /** Running containers of a function; each one's id is its instance. */
  async function instances(service: string): Promise<string[]> {
    const list = await world.ctr("tasks", "list");
    return [...list.matchAll(/^(\S+)\s+\d+\s+RUNNING/gm)]
      .map((m) => m[1]!)
      .filter((id) => id.startsWith(`${service}.`));
  }

  /** Lets a replica itself say something, whether napd runs or not. */
  async function sayAs(instance: string, text: string): Promise<void> {
    const exec = ["tasks", "exec", "--exec-id", `say${Math.random()}`.replace(".", "")];
    await world.ctr(...exec, instance, "busybox", "sh", "-c", `echo '${text}' > /proc/1/fd/1`);
  }

  test("of the watchdog tell what it did, within the default window", async () => {
    await deployed("POST", "cat", { envProcess: "cat", annotations: { "napd.watchdog": "inject" } });
    assert.equal((await world.call("/function/cat", { method: "POST", body: "hello" })).text, "hello");
    const lines = await eventually(
      () => read("name=cat"),
      (found) => found.some((l) => l.text.includes("Wrote 5 Bytes")),
    );
    const said = lines.map((l) => l.text.replace(/^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d /, ""));
    assert.ok(
      said.some((text) => text.startsWith("Forking fprocess")),
      said.join("\n"),
    );
    assert.ok(
      said.some((text) => text.startsWith("Wrote 5 Bytes")),
      said.join("\n"),
    );
    for (const line of lines) {
      assert.deepEqual(
        [line.name, line.namespace, line.instance],
        ["cat", world.namespace, (await instances("cat"))[0]],
      );
      assert.match(line.timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
      assert.ok(Math.abs(Date.parse(line.timestamp) - Date.now()) < 60_000, line.timestamp);
    }
  });

  test("of nobody are refused, of a silent function empty, of a deleted one too", async () => {
    assert.equal((await world.api("GET", "/system/logs?name=nobody")).status, 404);
    assert.equal((await world.api("GET", "/system/logs?name=cat&tail=many")).status, 422);
    assert.equal((await world.api("GET", "/system/logs?name=cat", undefined, "Basic eDp5")).status, 401);
    await deployed("POST", "brief");
    assert.deepEqual(await read("name=brief"), []);
    assert.equal((await world.api("DELETE", "/system/functions", { functionName: "brief" })).status, 202);
    assert.deepEqual(await read("name=brief"), []);
  });

  test("hold what was said: colours, bytes that are no text, and lines of any length", async () => {
    await deployed("POST", "web");
    await say("web", "\u001b[31mred\u001b[0m\n");
    await say("web", new Uint8Array([0x62, 0xff, 0x00, 0x0a]));
    await say("web", `${"x".repeat(70_000)}\n`);
    const said = await eventually(
      () => texts("name=web"),
      (found) => found.length === 4,
    );
    assert.deepEqual(said.slice(0, 2), ["\u001b[31mred\u001b[0m", "b\ufffd\u0000"]);
    assert.deepEqual(
      said.slice(2).map((text) => text.length),
      [65_536, 70_000 - 65_536],
    );
    assert.equal((await texts("name=web&tail=1"))[0]!.length, 70_000 - 65_536);
  });

  test("go on over an update and over another napd, and nothing is lost that was said without one", async () => {
    await using following = await follow("name=web&tail=1");
    await say("web", "before\n");
    await following.until((found) => found.includes("before"));
    await deployed("PUT", "web", { envVars: { VERSION: "2" } });
    await say("web", "after the update\n");
    await following.until((found) => found.includes("after the update"));
    const versions = new Set(following.lines.map((line) => line.instance));
    assert.equal(versions.size, 2, [...versions].join());

    await world.napd().stop(10_000);
    assert.equal(await following.ending, "in order");
    await sayAs(following.lines.at(-1)!.instance, "without napd");
    await world.start(settings);
    await say("web", "with the next one\n");
    const said = await texts("name=web");
    assert.deepEqual(said.slice(-4), ["before", "after the update", "without napd", "with the next one"]);
    const [, without, last] = await read("name=web&tail=3");
    assert.ok(without!.timestamp < last!.timestamp);
    assert.deepEqual(await texts(`name=web&since=${last!.timestamp}`), ["with the next one"]);
    await world.napd().kill9();
    await world.start(settings);
    assert.deepEqual((await texts("name=web")).slice(-2), ["without napd", "with the next one"]);
  });

  test("of two replicas come in the order of time, or of one alone", async () => {
    await deployed("POST", "pair", { labels: { "com.openfaas.scale.min": "2" } });
    await using following = await follow("name=pair");
    const [one, two] = (await instances("pair")).sort();
    const said = [
      [one!, "first"],
      [two!, "second"],
      [one!, "third"],
    ] as const;
    for (const [instance, text] of said) {
      await sayAs(instance, text);
      await following.until((found) => found.includes(text));
    }
    const lines = await read("name=pair");
    assert.deepEqual(
      lines.map((line) => [line.instance, line.text]),
      said,
    );
    assert.deepEqual(following.lines, lines);
    assert.deepEqual(await texts(`name=pair&instance=${one}`), ["first", "third"]);
    assert.deepEqual(await texts("name=pair&tail=2"), ["second", "third"]);
    assert.deepEqual(await read("name=pair&instance=other"), []);
  });

  test("of a flood without a line end stay small on disk and in napd, and the function goes on", async () => {
    const dir = `${world.paths.logs}/${world.namespace}/web`;
    const sum = async (of: (file: Stats) => number) => {
      const names = (await readdir(dir)).filter((name) => name.endsWith(".log"));
      const files = await Promise.all(names.map((name) => stat(`${dir}/${name}`)));
      return files.reduce((all, file) => all + of(file), 0);
    };
    const resident = async () =>
      Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${world.napd().pid}/status`, "utf8"))![1]) * 1024;
    const before = await resident();
    await using following = await follow("name=web&tail=1");
    assert.equal((await world.call("/function/web/cgi-bin/flood?256")).text, "flooded\n");
    await say("web", "\nafter the flood\n");
    await following.until((found) => found.at(-1) === "after the flood");
    assert.ok((await sum((file) => file.size)) > 256 * 2 ** 20);
    await eventually(
      () => sum((file) => file.blocks * 512),
      (bytes) => bytes < 3 * 2 ** 20,
    );
    assert.ok((await resident()) - before < 128 * 2 ** 20, `${before} became ${await resident()}`);
    assert.deepEqual(await texts("name=web&tail=1"), ["after the flood"]);
    assert.equal((await world.call("/function/web")).text, "hello\n");
  });

  test("go with the function, and are never readable for others", async () => {
    const modes = await Promise.all(
      [world.paths.logs, `${world.paths.logs}/${world.namespace}`, `${world.paths.logs}/${world.namespace}/web`].map(
        async (dir) => (await stat(dir)).mode & 0o777,
      ),
    );
    assert.deepEqual(modes, [0o700, 0o700, 0o700]);
    const gone = ["web", "pair", "cat"].map((functionName) =>
      world.api("DELETE", "/system/functions", { functionName }),
    );
    for (const answer of await Promise.all(gone)) assert.equal(answer.status, 202, answer.text);
    assert.deepEqual(
      (await world.traces()).filter((trace) => trace.startsWith("log ")),
      clean,
    );
  });
});
