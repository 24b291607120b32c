import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { suite, test } from "node:test";
import { openInternalCalls } from "../../../src/invoke/internal.ts";
import { deliverBy } from "../../../src/trigger/deliver.ts";

const call = { id: { name: "web", namespace: "fn" }, headers: { "X-Topic": "cron-function" }, isAsync: false };

type Fn = (req: IncomingMessage, res: ServerResponse, address: string, target: string) => void;

const refused: Fn = () => assert.fail("nobody calls this");
const open = (now: Fn, later: Fn) => deliverBy(openInternalCalls(now, 16_384), openInternalCalls(later, 16_384));

suite("a call of cron", () => {
  const { signal } = new AbortController();

  for (const isAsync of [false, true])
    test(`is a POST without a body or its type, ${isAsync ? "through the queue" : "at once"}`, async () => {
      const seen: unknown[] = [];
      const answer: Fn = async (req, res, address, target) => {
        let body = "";
        for await (const piece of req) body += piece;
        const { "x-topic": topic, "content-type": type, "content-length": length, host } = req.headers;
        seen.push([req.method, address, target, topic, type, length, host, body, req.socket.remoteAddress]);
        res.writeHead(207).end("x".repeat(1e6));
      };
      const deliver = isAsync ? open(refused, answer) : open(answer, refused);
      assert.deepEqual(await deliver({ ...call, isAsync }, signal), { status: 207 });
      assert.deepEqual(seen, [["POST", "web.fn", "/", "cron-function", undefined, "0", undefined, "", "127.0.0.1"]]);
    });

  test("fails when there is no answer, when it breaks off, and when napd stops", async () => {
    const silent: Fn = (_req, res) => void res.destroy();
    await assert.rejects(open(silent, refused)(call, signal));
    const half: Fn = (_req, res) => {
      res.writeHead(200, { "Content-Length": "10" });
      res.write("half");
      setImmediate(() => res.destroy());
    };
    await assert.rejects(open(half, refused)(call, signal), /aborted/);
    const stopping = new AbortController();
    const never: Fn = () => stopping.abort();
    await assert.rejects(open(never, refused)(call, stopping.signal), { name: "AbortError" });
  });
});
