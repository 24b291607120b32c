import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { suite, test } from "node:test";
import { deliverBy } from "../../../src/trigger/deliver.ts";

const call = { id: { name: "web", namespace: "fn" }, headers: { "X-Topic": "cron-function" }, isAsync: false };

async function serve(listener: RequestListener, host = "127.0.0.1") {
  const server = createServer(listener).listen(0, host);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    port,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => void server.close(() => resolve())),
  };
}

suite("a call of cron", () => {
  for (const [isAsync, url] of [
    [false, "/function/web.fn"],
    [true, "/async-function/web.fn"],
  ] as const)
    test(`is a POST of ${url} without a body or its type`, async () => {
      const seen: unknown[] = [];
      await using gateway = await serve(async (req, res) => {
        let body = "";
        for await (const piece of req) body += piece;
        const { "x-topic": topic, "content-type": type, "content-length": length } = req.headers;
        seen.push([req.method, req.url, topic, type, length, body]);
        res.writeHead(207).end("x".repeat(1e6));
      });
      const outcome = await deliverBy({ host: "0.0.0.0", port: gateway.port })({ ...call, isAsync });
      assert.deepEqual(outcome, { status: 207 });
      assert.deepEqual(seen, [["POST", url, "cron-function", undefined, "0", ""]]);
    });

  test("fails when nobody listens, and when the answer breaks off", async () => {
    let port: number;
    {
      await using gateway = await serve((_req, res) => {
        res.writeHead(200, { "Content-Length": "10" });
        res.write("half");
        setImmediate(() => res.destroy());
      });
      port = gateway.port;
      await assert.rejects(deliverBy({ host: "127.0.0.1", port })(call), /aborted|reset|hang up/);
    }
    await assert.rejects(deliverBy({ host: "127.0.0.1", port })(call), /ECONNREFUSED/);
  });
});
