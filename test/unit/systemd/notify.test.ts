import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { openNotifier } from "../../../src/systemd/notify.ts";
import { openNotifyReceiver } from "../../support/notify-receiver.ts";
import { tmpDir } from "../../support/tmp.ts";

async function open(more: NodeJS.ProcessEnv = {}) {
  const tmp = await tmpDir();
  const path = `${tmp.path}/notify.sock`;
  const receiver = await openNotifyReceiver(path);
  const environment: NodeJS.ProcessEnv = { PATH: process.env.PATH, NOTIFY_SOCKET: path, ...more };
  const notifier = openNotifier(environment);
  return {
    receiver,
    notifier,
    environment,
    async [Symbol.asyncDispose]() {
      notifier[Symbol.dispose]();
      await receiver[Symbol.asyncDispose]();
      await tmp[Symbol.asyncDispose]();
    },
  };
}

suite("what systemd is told", () => {
  test("the start, a reload and the end, in this order and in napd's name", async () => {
    await using t = await open();
    t.notifier.ready(() => "2 functions");
    t.notifier.reloading();
    t.notifier.reloaded();
    t.notifier.stopping();
    await t.receiver.until((message) => message.startsWith("STATUS=requests"));
    assert.deepEqual(t.receiver.messages, [
      "STATUS=starting",
      "READY=1",
      "STATUS=2 functions",
      "RELOADING=1",
      "READY=1",
      "STOPPING=1",
      "STATUS=requests under way end",
    ]);
    assert.deepEqual(new Set(t.receiver.pids), new Set([process.pid]));
  });

  test("the watchdog is fed from the start's end on, three times in its time, and a changed status told", async () => {
    await using t = await open({ WATCHDOG_USEC: "300000", WATCHDOG_PID: String(process.pid) });
    let status = "1 function";
    t.notifier.ready(() => status);
    await t.receiver.until((message) => message === "WATCHDOG=1");
    assert.deepEqual(t.receiver.messages.slice(0, 4), [
      "STATUS=starting",
      "READY=1",
      "STATUS=1 function",
      "WATCHDOG=1",
    ]);
    status = "2 functions\nand a line";
    await t.receiver.until((message) => message === "STATUS=2 functions and a line");
  });

  test("a watchdog for another process is not fed", async () => {
    await using t = await open({ WATCHDOG_USEC: "3000", WATCHDOG_PID: "1" });
    t.notifier.ready(() => "well");
    t.notifier.stopping();
    await t.receiver.until((message) => message.startsWith("STATUS=requests"));
    assert.ok(!t.receiver.messages.includes("WATCHDOG=1"));
  });

  test("nothing of it is left to the programs that napd starts", async () => {
    await using t = await open({ WATCHDOG_USEC: "1", WATCHDOG_PID: "1", OTHER: "stays" });
    assert.deepEqual(Object.keys(t.environment).sort(), ["OTHER", "PATH"]);
  });

  test("without a service manager nothing is started or sent", () => {
    const environment = { PATH: "/nowhere", WATCHDOG_USEC: "1" };
    using notifier = openNotifier(environment);
    notifier.ready(() => assert.fail("nobody wants to know"));
    notifier.stopping();
    assert.deepEqual(environment, { PATH: "/nowhere" });
  });

  test("a manager who cannot be told is no reason to fail", async () => {
    const notifier = openNotifier({ PATH: "/nowhere", NOTIFY_SOCKET: "/nowhere/at-all" });
    notifier.ready(() => "well");
    notifier[Symbol.dispose]();
  });
});
