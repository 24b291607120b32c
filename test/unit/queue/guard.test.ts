import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { parseCallback } from "../../../src/queue/callbacks.ts";
import { Guard } from "../../../src/queue/guard.ts";
import { postCallback } from "../../../src/queue/post.ts";

suite("callbacks may go to", () => {
  const guard = new Guard(["10.63.0.0/16"], []);
  const rows: [address: string, allowed: boolean][] = [
    ["203.0.113.7", true],
    ["192.168.1.10", true],
    ["10.64.0.1", true],
    ["2001:db8::1", true],
    ["127.0.0.1", false],
    ["127.255.0.1", false],
    ["0.0.0.0", false],
    ["169.254.169.254", false],
    ["10.63.0.1", false],
    ["10.63.255.9", false],
    ["224.0.0.1", false],
    ["255.255.255.255", false],
    ["::1", false],
    ["::", false],
    ["fe80::1", false],
    ["fe80::1%eth0", false],
    ["::ffff:127.0.0.1", false],
    ["::ffff:7f00:1", false],
    ["::ffff:10.63.0.1", false],
    ["::ffff:203.0.113.7", true],
    ["64:ff9b::7f00:1", false],
    ["2002:7f00:1::", false],
    ["::127.0.0.1", false],
    ["64:ff9b:1::a9fe:a9fe", false],
    ["2001:0:4136:e378:8000:63bf:80ff:fffe", false],
    ["2001:4860::8888", true],
  ];
  for (const [address, allowed] of rows)
    test(`${address}: ${allowed}`, () => assert.equal(guard.allows(address), allowed));

  test("what an administrator has opened", () => {
    const opened = new Guard(["10.63.0.0/16"], ["127.0.0.0/8", "::1"]);
    assert.deepEqual(
      ["127.0.0.1", "::1", "10.63.0.1", "169.254.169.254"].map((a) => opened.allows(a)),
      [...[true, true, false, false]],
    );
    assert.ok(new Guard(["10.63.0.0/16"], ["0.0.0.0/0"]).allows("10.63.0.1"));
  });

  for (const url of ["http://localhost/", "http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://[::1]/"])
    test(`${url} is this machine however it is spelled`, async () => {
      await assert.rejects(guard.addressesOf(parseCallback(url)!.hostname), (e) => isAppError(e, "CALLBACK_REFUSED"));
    });

  test("a host none of whose addresses is internal", async () => {
    const at = (...addresses: string[]) => new Guard([], [], async () => addresses.map((address) => ({ address })));
    assert.deepEqual(await at("203.0.113.7", "2001:db8::1").addressesOf("host"), [
      { address: "203.0.113.7", family: 4 },
      { address: "2001:db8::1", family: 6 },
    ]);
    for (const address of ["127.0.0.1", "::1", "::ffff:169.254.169.254"])
      await assert.rejects(at("203.0.113.7", address).addressesOf("host"), (e) => isAppError(e, "CALLBACK_REFUSED"));
    const unknown = new Guard([], [], () => Promise.reject(new Error("ENOTFOUND")));
    await assert.rejects(unknown.addressesOf("host"), (e) => isAppError(e, "CALLBACK_FAILED"));
  });

  for (const text of ["", "x", "/path", "ftp://host/", "file:///etc/passwd", "http://"])
    test(`"${text}" is no URL for a callback`, () => assert.equal(parseCallback(text), undefined));
});

suite("a callback", () => {
  test("posts headers and body; a redirect is not followed", async () => {
    const seen: string[] = [];
    const server = createServer(async (req, res) => {
      let body = "";
      for await (const piece of req) body += piece;
      seen.push(`${req.method} ${req.url} ${req.headers["x-function-status"]} ${req.headers.authorization} ${body}`);
      res.writeHead(302, { Location: "/elsewhere" }).end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const url = new URL(`http://user:pass@127.0.0.1:${port}/done?a=b`);
    const headers = ["X-Function-Status", "200", "Content-Length", "4"];
    const open = new Guard([], ["127.0.0.1"]);
    const { signal } = new AbortController();
    const result = await postCallback(open, url, headers, Readable.from([Buffer.from("body")]), signal);
    assert.equal(result.status, 302);
    assert.deepEqual(seen, [`POST /done?a=b 200 Basic ${btoa("user:pass")} body`]);
    await assert.rejects(postCallback(new Guard([], []), url, headers, Readable.from([]), signal), (e) =>
      isAppError(e, "CALLBACK_REFUSED"),
    );
    assert.equal(seen.length, 1);
    server.close();
  });

  test("goes to the address that was looked at, whatever the name leads to afterwards", async () => {
    const hosts: unknown[] = [];
    const server = createServer((req, res) => {
      hosts.push([req.headers.host, req.socket.localAddress]);
      res.end();
    }).listen(0, "0.0.0.0");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    let asked = 0;
    const rebinding = async () => [{ address: ++asked === 1 ? "127.0.0.1" : "127.0.0.2" }];
    const guard = new Guard([], ["127.0.0.1"], rebinding);
    const url = new URL(`http://rebinding.example:${port}/`);
    const post = () => postCallback(guard, url, [], Readable.from([]), new AbortController().signal);
    assert.equal((await post()).status, 200);
    assert.deepEqual([asked, hosts], [1, [[`rebinding.example:${port}`, "127.0.0.1"]]]);
    await assert.rejects(post(), (e) => isAppError(e, "CALLBACK_REFUSED"));
    assert.equal(hosts.length, 1);
    server.close();
  });
});
