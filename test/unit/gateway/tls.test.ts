import assert from "node:assert/strict";
import { once } from "node:events";
import { copyFile, mkdir, readFile, rename, symlink, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { connect as connectPlain } from "node:net";
import { after, before, suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connect, type TLSSocket } from "node:tls";
import type { Logger } from "../../../src/base/log.ts";
import { Certificate, type CertificateFiles } from "../../../src/gateway/certificate.ts";
import { makeSelfSigned } from "../../support/certificates.ts";
import { openTestGateway, recorder } from "../../support/gateway.ts";
import { type TmpDir, tmpDir } from "../../support/tmp.ts";

suite("the listener for HTTPS", () => {
  let tmp: TmpDir;
  let one: CertificateFiles;
  let two: CertificateFiles;
  before(async () => {
    tmp = await tmpDir();
    [one, two] = await Promise.all([makeSelfSigned(tmp.path, "one"), makeSelfSigned(tmp.path, "two")]);
  });
  after(() => tmp[Symbol.asyncDispose]());

  /** A gateway with a plain and a TLS listener, and what it has logged. */
  async function open(files: CertificateFiles) {
    await using up = new AsyncDisposableStack();
    const said: string[] = [];
    const say = (_: object, message: string) => void said.push(message);
    const log = { info: say, error: say } as unknown as Logger;
    const certificate = up.use(await Certificate.open(files, log, 10));
    const at = { host: "127.0.0.1", port: 0 };
    const listeners = [
      { at, setting: "gateway.listen" },
      { at, setting: "tls.listen", certificate },
    ];
    const gateway = up.use(await openTestGateway({ listeners }));
    const handlers = recorder();
    gateway.serve(handlers);
    const stack = up.move();
    const { port } = gateway.addresses[1]!;
    return {
      ...{ gateway, certificate, said, port },
      seen: handlers.seen,
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
  }

  async function dial(port: number, options = {}): Promise<TLSSocket> {
    const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ...options });
    await once(socket, "secureConnect");
    return socket;
  }

  /** Whose certificate is shown. */
  async function shown(port: number): Promise<string> {
    const socket = await dial(port);
    const { subject } = socket.getPeerCertificate();
    socket.destroy();
    return subject.CN as string;
  }

  async function untilShown(port: number, name: string): Promise<void> {
    while ((await shown(port)) !== name) await delay(5);
  }

  async function get(port: number, path: string, headers = {}): Promise<string> {
    const ca = await readFile(one.certificate);
    const req = request({ port, host: "localhost", path, ca, headers, agent: false }).end();
    const [res] = await once(req, "response");
    let text = "";
    for await (const chunk of res) text += chunk;
    return text;
  }

  test("takes the same way as the plain one, and says that it was HTTPS", async () => {
    await using t = await open(one);
    assert.equal(await get(t.port, "/function/f/a?b=c"), "f f /a?b=c");
    assert.equal(await get(t.port, "/system/info"), "api /system/info");
    const proto = (i: number) => {
      const raw = t.seen[i]!.req.rawHeaders;
      return raw.filter((_, at) => raw[at - 1]?.toLowerCase() === "x-forwarded-proto");
    };
    assert.deepEqual(proto(0), ["https"]);
    await get(t.port, "/function/f", { "x-forwarded-proto": "http" });
    assert.deepEqual(proto(2), ["http"]);
  });

  test("refuses what is malformed as the plain one does", async () => {
    await using t = await open(one);
    const socket = await dial(t.port);
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.write("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    await once(socket, "end");
    assert.match(text, /^HTTP\/1\.1 400 .*more than one Host/s);
  });

  test("speaks TLS 1.2 and 1.3, nothing older, and HTTP/1.1 only", async () => {
    await using t = await open(one);
    for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
      const socket = await dial(t.port, {
        minVersion: version,
        maxVersion: version,
        ALPNProtocols: ["h2", "http/1.1"],
      });
      assert.equal(socket.getProtocol(), version);
      assert.equal(socket.alpnProtocol, "http/1.1");
      socket.destroy();
    }
    const old = { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" };
    await assert.rejects(dial(t.port, old), /alert protocol version|ECONNRESET|socket hang up/i);
  });

  test("somebody who speaks no TLS, or nothing, is no harm to others and to the end", async () => {
    const t = await open(one);
    const plain = connectPlain(t.port, "127.0.0.1");
    plain.write("GET / HTTP/1.1\r\n\r\n");
    await once(plain, "close");
    const silent = connectPlain(t.port, "127.0.0.1");
    await once(silent, "connect");
    assert.equal(await get(t.port, "/system/info"), "api /system/info");
    await t.gateway.drain(60_000);
    await t[Symbol.asyncDispose]();
    silent.destroy();
  });

  const changes: [how: string, change: (files: CertificateFiles) => Promise<void>][] = [
    [
      "written over",
      async (files) => {
        await copyFile(two.key, files.key);
        await copyFile(two.certificate, files.certificate);
      },
    ],
    [
      "renamed into place",
      async (files) => {
        for (const what of ["certificate", "key"] as const) {
          await copyFile(two[what], `${files[what]}.new`);
          await rename(`${files[what]}.new`, files[what]);
        }
      },
    ],
  ];
  for (const [how, change] of changes)
    test(`takes up files that are ${how}`, async () => {
      const dir = `${tmp.path}/${how.replaceAll(" ", "-")}`;
      await mkdir(dir);
      const files = { certificate: `${dir}/c.pem`, key: `${dir}/k.pem` };
      for (const what of ["certificate", "key"] as const) await copyFile(one[what], files[what]);
      await using t = await open(files);
      const before = await dial(t.port);
      assert.equal(await shown(t.port), "one");
      await change(files);
      await untilShown(t.port, "two");
      assert.ok(!before.destroyed, "connections that there are go on");
      before.destroy();
    });

  test("takes up links that lead elsewhere, as certbot leaves them", async () => {
    const dir = `${tmp.path}/live`;
    await mkdir(dir);
    const files = { certificate: `${dir}/fullchain.pem`, key: `${dir}/privkey.pem` };
    for (const what of ["certificate", "key"] as const) await symlink(one[what], files[what]);
    await using t = await open(files);
    for (const what of ["certificate", "key"] as const) {
      await symlink(two[what], `${files[what]}.new`);
      await rename(`${files[what]}.new`, files[what]);
    }
    await untilShown(t.port, "two");
  });

  test("keeps the certificate that it has when the new one cannot be used, says so once, and takes a better one", async () => {
    const dir = `${tmp.path}/broken`;
    await mkdir(dir);
    const files = { certificate: `${dir}/c.pem`, key: `${dir}/k.pem` };
    for (const what of ["certificate", "key"] as const) await copyFile(one[what], files[what]);
    await using t = await open(files);
    await writeFile(files.certificate, "-----BEGIN CERTIFICATE-----\nno\n");
    const complaints = () => t.said.filter((line) => line.includes("cannot be used"));
    while (complaints().length === 0) await delay(5);
    assert.equal(await shown(t.port), "one");
    await delay(50); // several looks
    assert.equal(complaints().length, 1);
    for (const what of ["certificate", "key"] as const) await copyFile(two[what], files[what]);
    await untilShown(t.port, "two");
  });

  test("reads the files at once when it is asked to, and fails without a change when they are wrong", async () => {
    await using t = await open(one);
    await t.certificate.reload(two);
    assert.equal(await shown(t.port), "two");
    await assert.rejects(t.certificate.reload({ certificate: one.certificate, key: two.key }), {
      code: "TLS_CERTIFICATE",
      message: /one\.crt.*does not belong to the key in .*two\.key/,
    });
    assert.equal(await shown(t.port), "two");
  });

  test("files that are missing, or no certificate, are named", async () => {
    const log = {} as Logger;
    const none = { certificate: "/nowhere/c.pem", key: one.key };
    await assert.rejects(Certificate.open(none, log), { code: "TLS_CERTIFICATE", message: /nowhere\/c\.pem.*no such/ });
    const wrong = { certificate: one.key, key: one.key };
    await assert.rejects(Certificate.open(wrong, log), { code: "TLS_CERTIFICATE", message: /PEM/ });
  });
});
