/** nap as a process of its own: what it trusts, which it reads when it starts, and how signals and pipes end it. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, suite, test } from "node:test";
import { makeCertificate } from "../../support/certificates.ts";
import { openRecordingServer, type Ran } from "../../support/nap.ts";
import { tmpDir } from "../../support/tmp.ts";

const up = new AsyncDisposableStack();
after(() => up.disposeAsync());
const { path: dir } = up.use(await tmpDir());
const ours = makeCertificate(dir);
const listed = [{ status: 200, body: [] }];
const server = up.use(await openRecordingServer(listed, ours));
const plain = up.use(await openRecordingServer(listed));

const entry = join(import.meta.dirname, "../../../src/nap.ts");
const base = { PATH: process.env.PATH, HOME: dir };

function run(args: string[], env: Record<string, string> = {}): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(process.execPath, [entry, ...args], { cwd: dir, env: { ...base, ...env } }, (error, stdout, stderr) =>
      resolve({ exit: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    );
  });
}

const rows: { says: string; gateway?: string; args?: string[]; env?: Record<string, string>; stderr?: RegExp }[] = [
  {
    says: "an authority that nobody knows is named, with what to do",
    stderr: /authority that is not known here; SSL_CERT_FILE/,
  },
  { says: "--tls-no-verify takes any certificate", args: ["--tls-no-verify"] },
  { says: "--no-tls-verify as well", args: ["--no-tls-verify"] },
  { says: "SSL_CERT_FILE is believed", env: { SSL_CERT_FILE: ours.caFile } },
  { says: "so is NODE_EXTRA_CA_CERTS", env: { NODE_EXTRA_CA_CERTS: ours.caFile } },
  {
    says: "a certificate is for its names",
    gateway: server.url.replace("127.0.0.1", "localhost"),
    env: { SSL_CERT_FILE: ours.caFile },
    stderr: /its certificate is for another name/,
  },
  {
    says: "https where http is spoken",
    gateway: plain.url.replace("http:", "https:"),
    stderr: /does not speak TLS; write http:/,
  },
  {
    says: "http where https is spoken",
    gateway: server.url.replace("https:", "http:"),
    stderr: /it may want https instead of http/,
  },
];

suite("nap and TLS", { concurrency: 2 }, () => {
  for (const { says, gateway = server.url, args = [], env, stderr } of rows)
    test(says, async () => {
      const ran = await run(["list", "-q", "-g", gateway, ...args], env);
      assert.equal(ran.exit, stderr ? 1 : 0, ran.stderr);
      if (stderr) {
        assert.match(ran.stderr, stderr);
        assert.match(ran.stderr, /^nap: .*\n$/, "one line");
      }
    });
});

suite("nap and who ends it", () => {
  test("Ctrl-C ends it with 130, without a word", async () => {
    const asked = Promise.withResolvers<void>();
    const silent = createServer(() => asked.resolve()).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo;
    const child = spawn(process.execPath, [entry, "list", "-g", `http://127.0.0.1:${port}`], { cwd: dir, env: base });
    let stderr = "";
    child.stderr.on("data", (piece) => {
      stderr += piece;
    });
    await asked.promise;
    child.kill("SIGINT");
    assert.deepEqual(await once(child, "close"), [130, null]);
    assert.equal(stderr, "");
    silent.closeAllConnections();
    silent.close();
  });

  test("a reader that has enough is no failure", async () => {
    const functions = Array.from({ length: 20_000 }, (_, i) => ({ name: `function-with-a-long-name-${i}` }));
    await using many = await openRecordingServer([{ status: 200, body: functions }]);
    const line = `"${process.execPath}" "${entry}" list -g ${many.url} | head -1; echo "\${PIPESTATUS[*]}"`;
    const { promise, resolve } = Promise.withResolvers<string>();
    execFile("bash", ["-c", line], { cwd: dir, env: base }, (_, stdout, stderr) => resolve(stdout + stderr));
    assert.match(await promise, /^FUNCTION .*\n0 0\n$/);
  });
});
