/** The end of a gateway as those see it who have a connection to it. */
import assert from "node:assert/strict";
import { open } from "node:fs/promises";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type Caller, call, openTestGateway, recorder, type Seen } from "../../support/gateway.ts";

const get = (path = "/function/f") => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;

async function openGateway(answer?: (seen: Seen) => void) {
  const gateway = await openTestGateway();
  const handlers = recorder(answer);
  gateway.serve(handlers);
  return { gateway, seen: handlers.seen, [Symbol.asyncDispose]: () => gateway[Symbol.asyncDispose]() };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(1);
}

const answered = (caller: Caller, count: number) => until(() => caller.statuses().length === count);

suite("the end of a gateway", () => {
  test("a caller who goes on asking on a kept connection is answered, and told that it was the last time", async () => {
    await using t = await openGateway();
    using caller = await call(t.gateway.port, get());
    await answered(caller, 1);
    assert.doesNotMatch(caller.text(), /Connection: close/i);
    const drained = t.gateway.drain(60_000);
    caller.socket.write(get("/function/again"));
    await caller.ended;
    assert.deepEqual(caller.statuses(), [200, 200]);
    assert.match(caller.text(), /Connection: close/i);
    await drained;
  });

  test("an answer that had not begun says that it is the last one", async () => {
    await using t = await openGateway(() => {});
    using caller = await call(t.gateway.port, get());
    await until(() => t.seen.length === 1);
    const drained = t.gateway.drain(60_000);
    t.seen[0]!.res.end("late");
    await caller.ended;
    assert.match(caller.text(), /Connection: close[\s\S]*late$/i);
    await drained;
  });

  test("one that had begun is sent to its end, and the next request too", async () => {
    await using t = await openGateway(() => {});
    using caller = await call(t.gateway.port, get());
    await until(() => t.seen.length === 1);
    t.seen[0]!.res.write("begun");
    await until(() => caller.text().includes("begun"));
    const drained = t.gateway.drain(60_000);
    t.seen[0]!.res.end("ended");
    await until(() => caller.text().includes("ended"));
    caller.socket.write(get());
    await until(() => t.seen.length === 2);
    t.seen[1]!.res.end("again");
    await caller.ended;
    assert.match(caller.text(), /Connection: close[\s\S]*again$/i);
    await drained;
  });

  test("who asks for nothing is closed in order, whether something was asked for before or not", async () => {
    await using t = await openGateway();
    using idle = await call(t.gateway.port, get());
    await answered(idle, 1);
    using fresh = await call(t.gateway.port);
    await t.gateway.drain(60_000);
    await Promise.all([idle.ended, fresh.ended]);
    assert.equal(fresh.text(), "");
  });

  test("new callers are answered for a moment more", async () => {
    await using t = await openGateway();
    using idle = await call(t.gateway.port, get());
    await answered(idle, 1);
    const drained = t.gateway.drain(60_000);
    using late = await call(t.gateway.port, get());
    await late.ended;
    assert.deepEqual(late.statuses(), [200]);
    await drained;
  });

  test("a change of protocol is not begun any more", async () => {
    await using t = await openGateway();
    using idle = await call(t.gateway.port, get());
    await answered(idle, 1);
    const drained = t.gateway.drain(60_000);
    const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    using caller = await call(t.gateway.port, get().replace(/\r\n$/, `${upgrade}\r\n`));
    await caller.ended;
    assert.deepEqual(caller.statuses(), [503]);
    await drained;
  });

  test("a descriptor that is no listening socket is refused, with the setting that it stands for", async () => {
    await using file = await open("/dev/null");
    await assert.rejects(openTestGateway({ listeners: [{ at: { fd: file.fd }, setting: "gateway.listen" }] }), {
      code: "LISTEN",
      message: /cannot listen on inherited socket \d+: .*gateway\.listen/,
    });
  });
});
