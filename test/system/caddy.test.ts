/** The Caddyfile that comes with napd, with certificates of Caddy's own authority. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { after, before, suite, test } from "node:test";
import { connect } from "node:tls";
import { startChild, waitReady } from "../../scripts/child.ts";
import { freePort } from "../support/free-port.ts";
import { answerText, openRawGateway, type RawGateway, Wire } from "../support/raw-gateway.ts";
import { tmpDir } from "../support/tmp.ts";

const caddyfile = resolve(import.meta.dirname, "../../systemd/Caddyfile");

suite("Caddy before napd", () => {
  const up = new AsyncDisposableStack();
  let gateway: RawGateway;
  let port: number;
  let authority: string;

  before(async () => {
    const { path: dir } = up.use(await tmpDir());
    gateway = up.use(await openRawGateway());
    port = await freePort();
    const options = ["admin off", "skip_install_trust", "auto_https disable_redirects", `storage file_system ${dir}`];
    await writeFile(`${dir}/Caddyfile`, `{\n${options.join("\n")}\n}\nimport ${caddyfile}\n`);
    const env = {
      ...process.env,
      HOME: dir,
      NAPD_DOMAIN: `https://localhost:${port}`,
      NAPD_GATEWAY: `127.0.0.1:${gateway.port}`,
    };
    const logFile = `${dir}/log`;
    const args = ["run", "--config", `${dir}/Caddyfile`, "--adapter", "caddyfile"];
    const caddy = up.use(await startChild("caddy", args, { logFile, env }));
    authority = `${dir}/pki/authorities/local/root.crt`;
    // the certificate is on the disk before Caddy answers with it
    const answers = () =>
      dial().then(
        ({ socket }) => Boolean(socket.destroy()),
        () => false,
      );
    await waitReady(caddy, answers, { what: "caddy", timeoutMs: 30_000, logFile });
  });
  after(() => up.disposeAsync());

  const ask = (path: string, fields: string[] = []) =>
    `GET ${path} HTTP/1.1\r\n${[`Host: localhost:${port}`, ...fields].join("\r\n")}\r\n\r\n`;

  async function dial(): Promise<Wire> {
    const socket = connect({ port, host: "127.0.0.1", servername: "localhost", ca: await readFile(authority) });
    await once(socket, "secureConnect");
    return new Wire(socket);
  }

  test("a call comes through, and the function is told who called, by what name and that it was HTTPS", async () => {
    const caller = await dial();
    caller.send(ask("/function/f/a?b=c"));
    const replica = await gateway.accepted();
    const head = await replica.head();
    assert.match(head, /^GET \/a\?b=c HTTP\/1\.1\r\n/);
    assert.match(head, /^X-Forwarded-For: 127\.0\.0\.1\r$/m);
    assert.match(head, /^X-Forwarded-Host: localhost:\d+\r$/m);
    assert.match(head, /^X-Forwarded-Proto: https\r$/m);
    replica.send(answerText("fine", "200 OK", ["Connection: close"]));
    await caller.until("fine");
    caller.socket.destroy();
  });

  test("what a function streams arrives piece by piece", async () => {
    const caller = await dial();
    caller.send(ask("/function/f"));
    const replica = await gateway.accepted();
    await replica.head();
    replica.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const piece of ["one", "two"]) {
      replica.send(`3\r\n${piece}\r\n`);
      await caller.until(piece); // before the next is sent
    }
    replica.send("0\r\n\r\n");
    await caller.until("0\r\n\r\n");
    caller.socket.destroy();
  });

  test("a WebSocket is opened, and carries bytes both ways", async () => {
    const caller = await dial();
    const fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"];
    caller.send(ask("/function/f/socket", fields));
    const replica = await gateway.accepted();
    assert.match(await replica.head(), /^Upgrade: websocket\r$/m);
    replica.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert.match(await caller.head(), /^HTTP\/1\.1 101 /);
    caller.send("from the caller");
    await replica.until("from the caller");
    replica.send("from the function");
    await caller.until("from the function");
    caller.socket.destroy();
    replica.socket.destroy();
  });
});
