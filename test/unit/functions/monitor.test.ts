/** Probes of a replica that has got ready, against a real server and a clock that hurries. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { suite, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { monitor } from "../../../src/functions/monitor.ts";
import { probesOf } from "../../../src/functions/probes.ts";
import { Replica } from "../../../src/functions/replica.ts";
import { fastClock } from "../../fakes/clock.ts";
import { until } from "../../fakes/platform.ts";
import { freePort } from "../../support/free-port.ts";

/** A replica whose program answers with `status`, looked after a hundred times as fast as life. */
async function watched(annotations: Record<string, string>, { listens = true } = {}) {
  const program = {
    status: 200,
    answer: undefined as ((req: IncomingMessage, res: ServerResponse) => void) | undefined,
  };
  const asked: string[] = [];
  const server = createServer((req, res) => {
    asked.push(`${req.method} ${req.url}`);
    if (program.answer) program.answer(req, res);
    else res.writeHead(program.status).end();
  });
  if (listens) await once(server.listen(0, "127.0.0.1"), "listening");
  const port = listens ? (server.address() as AddressInfo).port : await freePort();
  const replica = new Replica({ name: "web", namespace: "fn", generation: 1, number: 0 });
  replica.move(["starting"], "ready");
  const unhealthy: string[] = [];
  const refusals: (string | null)[] = [];
  monitor(replica, { host: "127.0.0.1", port }, probesOf(annotations), fastClock(systemClock, 100), {
    unhealthy: (e) => void unhealthy.push(e.message),
    refusal: () => void refusals.push(replica.refusal),
  });
  return {
    ...{ program, asked, replica, unhealthy, refusals },
    /** Lets so many periods of a second go by. */
    periods: (n: number) => systemClock.sleep(n * 10),
    async [Symbol.asyncDispose]() {
      await replica.disconnect();
      server.closeAllConnections();
      if (listens) await new Promise((resolve) => server.close(resolve));
    },
  };
}

const health = {
  "com.openfaas.health.http.path": "/_/health",
  "com.openfaas.health.http.periodSeconds": "1",
  "com.openfaas.health.http.timeoutSeconds": "1",
};
const ready = { "com.openfaas.ready.http.path": "/_/ready", "com.openfaas.ready.http.periodSeconds": "1" };

/** Freezes and thaws at once. */
const kernel = { freeze: async () => {}, thaw: async () => {} };

suite("a health check", () => {
  test("that fails as often in a row as it may makes a replica unhealthy, once, and says how", async () => {
    await using w = await watched(health);
    await until("it has been asked", () => w.asked.length > 2);
    assert.deepEqual(w.unhealthy, []);
    w.program.status = 503;
    await until("it is unhealthy", () => w.unhealthy.length > 0);
    await w.periods(5);
    assert.equal(w.unhealthy.length, 1);
    assert.match(
      w.unhealthy[0]!,
      /web\.1\.0 failed its health check 3 times in a row \(GET \/_\/health answered 503\)/,
    );
    assert.equal(w.asked[0], "GET /_/health");
  });

  test("that fails now and then does not", async () => {
    await using w = await watched(health);
    let n = 0;
    w.program.answer = (_, res) => void res.writeHead(n++ % 3 === 2 ? 200 : 500).end();
    await until("it has been asked often", () => n > 12);
    assert.deepEqual(w.unhealthy, []);
  });

  test("of a sleeping replica is not made, and what it failed before does not count afterwards", async () => {
    await using w = await watched(health);
    let n = 0;
    w.program.answer = (_, res) => {
      n++;
      res.writeHead(500).end();
    };
    await until("it has failed twice", () => n === 2);
    await w.replica.fallAsleep(kernel);
    await w.periods(8);
    const asleep = n;
    assert.ok(asleep <= 3, `asked ${asleep} times`); // one may have been under way
    await w.replica.ensureAwake(kernel.thaw);
    await until("it has failed again", () => n === asleep + 2);
    assert.deepEqual(w.unhealthy, []);
    await until("three times in a row", () => w.unhealthy.length === 1);
  });

  test("that is under way while the replica falls asleep and wakes up says nothing", async () => {
    await using w = await watched({ ...health, "com.openfaas.health.http.failureThreshold": "1" });
    let first = true;
    w.program.answer = async (_, res) => {
      if (first) {
        await w.replica.fallAsleep(kernel);
        await w.replica.ensureAwake(kernel.thaw);
        res.writeHead(500).end();
      } else res.writeHead(200).end();
      first = false;
    };
    await until("it has been asked again", () => w.asked.length > 3);
    assert.deepEqual(w.unhealthy, []);
  });

  test("ends with its replica", async () => {
    await using w = await watched(health);
    await until("it has been asked", () => w.asked.length > 0);
    w.replica.move(["ready"], "stopping");
    await systemClock.sleep(20); // one may be under way
    const asked = w.asked.length;
    await w.periods(10);
    assert.equal(w.asked.length, asked);
  });

  test("without a path asks the port", async () => {
    await using w = await watched({ "com.openfaas.health.http.periodSeconds": "1" }, { listens: false });
    await until("it is unhealthy", () => w.unhealthy.length > 0);
    assert.match(w.unhealthy[0]!, /nothing accepts connections on port \d+/);
  });

  test("waits for its first delay", async () => {
    await using w = await watched({ ...health, "com.openfaas.health.http.initialDelaySeconds": "99999" });
    await w.periods(10);
    assert.deepEqual(w.asked, []);
  });
});

suite("a readiness check", () => {
  test("that fails takes a replica out, and one that succeeds lets it in again", async () => {
    await using w = await watched(ready);
    await until("it has been asked", () => w.asked.length > 2);
    assert.equal(w.replica.refusal, null);
    w.program.status = 429;
    await until("it is out", () => w.refusals.length === 1);
    assert.match(w.replica.refusal!, /GET \/_\/ready answered 429/);
    w.program.status = 200;
    await until("it is in", () => w.refusals.length === 2);
    assert.equal(w.replica.refusal, null);
    assert.deepEqual(w.unhealthy, []);
  });

  test("is made only of who has a path for it", async () => {
    await using w = await watched({ "com.openfaas.ready.http.periodSeconds": "1" });
    await w.periods(10);
    assert.deepEqual(w.asked, []);
  });
});
