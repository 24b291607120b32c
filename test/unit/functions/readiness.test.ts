import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { suite, test } from "node:test";
import { type Clock, systemClock } from "../../../src/base/clock.ts";
import { probesOf } from "../../../src/functions/probes.ts";
import { waitReady } from "../../../src/functions/readiness.ts";
import { hurriedClock } from "../../fakes/clock.ts";
import { freePort } from "../../support/free-port.ts";

const waits = new AbortController().signal;

/** Whether a replica at `port` gets ready within `ms`. */
async function ready(port: number, path: string | null, ms: number, clock: Clock, signal = waits): Promise<boolean> {
  const annotations: Record<string, string> = path === null ? {} : { "com.openfaas.ready.http.path": path };
  return (await waitReady({ host: "127.0.0.1", port }, probesOf(annotations), ms, clock, signal)) === null;
}

async function serve(answer: RequestListener, port = 0) {
  const server = createServer(answer).listen(port, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

suite("a replica is ready", () => {
  test("when its port accepts a connection, whatever it would answer", async () => {
    await using server = await serve((_, res) => void res.writeHead(500).end());
    assert.equal(await ready(server.port, null, 5000, systemClock), true);
  });

  test("as soon as its port accepts, also when that comes late", async () => {
    const port = await freePort();
    const waiting = ready(port, null, 20_000, systemClock);
    let settled = false;
    void waiting.then(() => {
      settled = true;
    });
    await systemClock.sleep(30);
    assert.equal(settled, false);
    await using _ = await serve(() => {}, port);
    assert.equal(await waiting, true);
  });

  const answers: { status: number; isReady: boolean }[] = [
    { status: 200, isReady: true },
    { status: 204, isReady: true },
    { status: 302, isReady: true },
    { status: 399, isReady: true },
    { status: 400, isReady: false },
    { status: 404, isReady: false },
    { status: 503, isReady: false },
  ];
  for (const { status, isReady } of answers)
    test(`${isReady ? "" : "not "}when it answers its path with ${status}`, async () => {
      const asked: string[] = [];
      await using server = await serve((req, res) => {
        asked.push(`${req.method} ${req.url}`);
        res.writeHead(status, { Location: "/else" }).end();
      });
      assert.equal(await ready(server.port, "/ready?deep=1", 50, hurriedClock()), isReady);
      assert.deepEqual(new Set(asked), new Set(["GET /ready?deep=1"]));
    });

  test("when it answers its path at last", async () => {
    let left = 5;
    await using server = await serve((_, res) => void res.writeHead(left-- > 0 ? 503 : 200).end());
    assert.equal(await ready(server.port, "/ready", 60_000, hurriedClock()), true);
    assert.equal(left, -1);
  });
});

suite("a replica is not ready", () => {
  test("when nothing listens within the time", async () => {
    const clock = hurriedClock();
    assert.equal(await ready(await freePort(), null, 60_000, clock), false);
    assert.ok(clock.monotonic() > 59_000 && clock.monotonic() <= 60_000, `gave up after ${clock.monotonic()} ms`);
  });

  test("when it cuts the connection instead of answering its path", async () => {
    await using server = await serve((req) => void req.socket.destroy());
    assert.equal(await ready(server.port, "/ready", 100, hurriedClock()), false);
  });

  test("and is asked ten times a second then, not more", async () => {
    const clock = hurriedClock();
    let asked = 0;
    await using server = await serve((_, res) => {
      asked++;
      res.writeHead(503).end();
    });
    await ready(server.port, "/ready", 10_000, clock);
    assert.ok(asked > 90 && asked < 120, `${asked} times in 10 s`);
  });

  test("when nobody wants to know any more: the reason is told", async () => {
    const reason = new Error("superseded");
    const port = await freePort();
    await assert.rejects(ready(port, null, 60_000, systemClock, AbortSignal.abort(reason)), reason);
    const later = new AbortController();
    const waiting = ready(port, null, 60_000, systemClock, later.signal);
    later.abort(reason);
    await assert.rejects(waiting, reason);
  });
});
