/** Calls as real functions and real clients meet them: a raw server and our watchdog, in containers. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { baseLayer, writeOciArchive } from "../../scripts/oci-image.ts";
import { watchdogImage } from "../support/images.ts";
import { requestText, Wire } from "../support/raw-gateway.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const run = promisify(execFile);

/** A server in shell: `nc` runs it once per connection, with the connection as its input and output. */
const serve = `#!/bin/sh
cr=$(printf '\\r')
head=""; length=0
IFS= read -r line || exit
while :; do
  line=\${line%$cr}
  [ -z "$line" ] && break
  head="$head$line
"
  case "$line" in [Cc]ontent-[Ll]ength:*) length=\${line#*: } ;; esac
  IFS= read -r line
done
path=\${head#* }; path=\${path%% *}
say() { printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n%s\\r\\n\\r\\n' "$1"; }
case "$path" in
  /dump*) say "X-Duration-Seconds: 0.5"; printf '%s' "$head" ;;
  /count) say; head -c "$length" | wc -c ;;
  /zeros) say "Content-Length: $((128 * 1024 * 1024))"; exec head -c $((128 * 1024 * 1024)) /dev/zero ;;
  /early) printf 'HTTP/1.1 413 Too Large\\r\\nContent-Length: 8\\r\\n\\r\\ntoo much'; exec cat >/dev/null ;;
  /half) say "Content-Length: 100"; printf part ;;
  /events)
    say "Content-Type: text/event-stream"
    printf 'data: 1\\n\\n'
    read -r _ # waits for the body, which is sent when the first event has been seen
    printf 'data: 2\\n\\n' ;;
  /hang) echo begun >/tmp/hang; cat >/dev/null; echo left >/tmp/hang; exit ;;
  /told) say; cat /tmp/hang ;;
  /chat) printf 'HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n'; exec cat ;;
  /refuse) printf 'HTTP/1.1 403 Forbidden\\r\\nContent-Length: 7\\r\\n\\r\\nnot you' ;;
  *) say; printf 'hello' ;;
esac
`;

suite("calls", () => {
  const up = new AsyncDisposableStack();
  let world: World;

  before(async () => {
    world = up.use(await openWorld());
    await world.start({ "images.pull_policy": "Never" });
    const layers = [await baseLayer(), [{ path: "/serve", content: serve, mode: 0o755 }]];
    const cmd = ["sh", "-c", "trap 'kill $!; exit' TERM; busybox nc -ll -p 8080 -e /serve & wait"];
    await writeOciArchive(`${world.dir}/raw.tar`, { ref: "docker.io/library/raw:1", layers, cmd });
    await world.import(`${world.dir}/raw.tar`);
    await world.import(await watchdogImage(`${world.dir}/cat.tar`, "docker.io/library/cat:1", "cat"));
    await deploy("raw", "raw:1");
    await deploy("cat", "cat:1");
  });
  after(() => up.disposeAsync());

  async function deploy(service: string, image: string, annotations: Record<string, string> = {}): Promise<void> {
    const answer = await world.api("POST", "/system/functions", { service, image, annotations });
    assert.equal(answer.status, 202, answer.text);
  }

  async function dial(): Promise<Wire> {
    const socket = connect({ host: "127.0.0.1", port: world.port, allowHalfOpen: true });
    await once(socket, "connect");
    return new Wire(socket);
  }

  /** One call on a connection of its own, as it comes back. */
  async function call(line: string, headers: readonly string[] = [], body = ""): Promise<string> {
    const wire = await dial();
    wire.send(requestText(line, [...headers, "Connection: close"], body));
    return wire.rest();
  }

  const pid = async () =>
    /^raw\.\S+\s+(\d+)\s+RUNNING/m.exec(await world.ctr("tasks", "list"))?.[1] ?? assert.fail("raw does not run");

  test("arrive with method, path and query as they were sent, and come back with the function's own headers", async () => {
    const text = await call("PROPFIND /function/raw/dump%2Fa//b?c=%20d", ["X-Twice: 1", "x-twice: 2", "TE: trailers"]);
    assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(text, /\r\nX-Duration-Seconds: 0\.5\r\n/);
    assert.match(text, /PROPFIND \/dump%2Fa\/\/b\?c=%20d HTTP\/1\.1\nHost: [\d.]+:8080\nX-Twice: 1\nx-twice: 2\n/);
    assert.match(text, /\nX-Forwarded-Host: napd\.example\nX-Forwarded-For: 127\.0\.0\.1:\d+\n/);
    assert.doesNotMatch(text, /\nTE:/i);
  });

  test("through the watchdog tell how long they took, in both framings", async () => {
    for (const headers of [["Content-Length: 4"], ["Transfer-Encoding: chunked"]]) {
      const body = headers[0]!.includes("chunked") ? "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n" : "body";
      const text = await call("POST /function/cat", headers, body);
      assert.match(text, /\r\nX-Duration-Seconds: [\d.]+\r\n[\s\S]*body$/);
    }
  });

  test("by curl with a large body are told to go on: it would wait ten minutes for that", async () => {
    const file = `${world.dir}/body`;
    await writeFile(file, Buffer.alloc(2_000_000));
    const url = `${world.url}/function/raw/count`;
    const options = ["-sS", "-m", "120", "--expect100-timeout", "600", "-H", "Expect: 100-continue"];
    assert.equal((await run("curl", [...options, "--data-binary", `@${file}`, url])).stdout.trim(), "2000000");
  });

  test("with large bodies both ways take little memory", async () => {
    const size = 128 * 1024 * 1024;
    const file = `${world.dir}/large`;
    const rss = async () =>
      Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${world.napd().pid}/status`, "utf8"))![1]);
    const before = await rss();
    const [up, down] = await Promise.all([
      run("sh", ["-c", `truncate -s ${size} ${file} && curl -sS -X POST -T ${file} ${world.url}/function/raw/count`]),
      run("sh", ["-c", `curl -sS ${world.url}/function/raw/zeros | wc -c`]),
    ]);
    assert.deepEqual([up.stdout.trim(), down.stdout.trim()], [String(size), String(size)]);
    assert.ok((await rss()) - before < 150_000, `${before} kB grew to ${await rss()} kB`);
  });

  test("of an event stream come event by event", async () => {
    const wire = await dial();
    wire.send(requestText("POST /function/raw/events", ["Content-Length: 3"]));
    await wire.until("data: 1\n\n");
    wire.send("go\n");
    await wire.until("data: 2\n\n");
    wire.socket.destroy();
  });

  test("that are answered before their body has come are answered", async () => {
    const wire = await dial();
    wire.send(requestText("POST /function/raw/early", ["Content-Length: 1000000"], "beginning"));
    assert.match(await wire.until("too much"), /^HTTP\/1\.1 413 /);
    wire.socket.destroy();
  });

  test("whose caller leaves are cancelled in the function", async () => {
    const wire = await dial();
    wire.send(requestText("GET /function/raw/hang"));
    const told = async () => (await world.call("/function/raw/told")).text.trim();
    await eventually(told, (text) => text === "begun");
    wire.socket.destroy();
    await eventually(told, (text) => text === "left");
  });

  test("whose answer breaks off are broken off", async () => {
    const text = await call("GET /function/raw/half");
    assert.match(text, /\r\nContent-Length: 100\r\n[\s\S]*\r\n\r\npart$/);
  });

  test("may change the protocol, also of a function without a replica", async () => {
    const asks = ["Connection: Upgrade", "Upgrade: websocket"];
    for (const wakes of [false, true]) {
      if (wakes) {
        await world.api("POST", "/system/scale-function/raw", { serviceName: "raw", replicas: 0 });
        await eventually(
          () => world.ctr("tasks", "list"),
          (tasks) => !tasks.includes("raw."),
        );
      }
      const wire = await dial();
      wire.send(requestText("GET /function/raw/chat", asks));
      assert.match(await wire.head(), /^HTTP\/1\.1 101 /);
      wire.send("\x81\x05hello");
      await wire.until("\x81\x05hello");
      wire.socket.end();
      assert.equal(await wire.rest(), "");
    }
    assert.match(await call("GET /function/raw/refuse", asks), /^HTTP\/1\.1 403 [\s\S]*not you$/);
  });

  test("as the function's process dies are told why, and the next ones wait for the new one", async () => {
    const before = await pid();
    const dies = call("GET /function/raw/hang");
    const told = async () => (await world.call("/function/raw/told")).text.trim();
    await eventually(told, (text) => text === "begun");
    process.kill(Number(before), "SIGKILL");
    assert.match(await dies, /^HTTP\/1\.1 502 [\s\S]*X-OpenFaaS-Internal: napd[\s\S]*code 137/);
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => call("POST /function/raw", ["Content-Length: 0"])),
    );
    for (const text of answers) assert.match(text, /^HTTP\/1\.1 200 /);
    assert.notEqual(await pid(), before);
  });

  test("that come as the process has just died are not lost", async () => {
    const before = await pid();
    process.kill(Number(before), "SIGKILL");
    // what it had not answered is lost with it; what comes from now on is refused by the kernel
    while (/^\d+ \(.*\) [^ZX]/.test(await readFile(`/proc/${before}/stat`, "utf8").catch(() => "")));
    const answers = await Promise.all(Array.from({ length: 20 }, () => call("GET /function/raw")));
    assert.deepEqual(
      answers.filter((text) => !text.startsWith("HTTP/1.1 200 ")),
      [],
    );
  });

  test("that go beyond the limits of their function are refused with a text that says which", async () => {
    await deploy("narrow", "raw:1", {
      "napd.max-inflight": "1",
      "napd.queue": "1",
      "napd.max-body": "1Ki",
      "napd.timeout": "2s",
    });
    const large = await call("POST /function/narrow/count", ["Content-Length: 1025"]);
    assert.match(large, /^HTTP\/1\.1 413 [\s\S]*1024 bytes[\s\S]*napd\.max-body/);
    const chunked = await call(
      "POST /function/narrow/count",
      ["Transfer-Encoding: chunked"],
      `401\r\n${"x".repeat(1025)}\r\n0\r\n\r\n`,
    );
    assert.match(chunked, /^HTTP\/1\.1 413 /);
    const answers = await Promise.all(Array.from({ length: 3 }, () => call("GET /function/narrow/hang")));
    const statuses = answers.map((text) => text.slice(9, 12)).sort();
    assert.deepEqual(statuses, ["429", "504", "504"]);
    assert.match(answers.find((text) => text.includes(" 429 "))!, /\r\nRetry-After: \d+\r\n/);
    for (const text of answers.filter((t) => t.includes(" 504 ")))
      assert.match(text, /within 2 s \(annotation napd\.timeout\)/);
    assert.match(await call("GET /function/narrow"), /^HTTP\/1\.1 200 /);
  });

  test("cannot be limited by what is no limit: the deploy is refused and nothing changes", async () => {
    const annotations = { "napd.max-inflight": "many" };
    const answer = await world.api("PUT", "/system/functions", { service: "raw", image: "raw:1", annotations });
    assert.equal(answer.status, 400);
    assert.match(answer.text, /napd\.max-inflight "many" is not a whole number/);
    assert.match(await call("GET /function/raw"), /^HTTP\/1\.1 200 /);
  });

  test("of a function that does not exist are answered 404", async () => {
    assert.match(
      await call("GET /function/ghost"),
      /^HTTP\/1\.1 404 [\s\S]*X-OpenFaaS-Internal: napd[\s\S]*does not exist/,
    );
  });
});
