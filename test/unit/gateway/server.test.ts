import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, request, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { Entry, type Table } from "../../../src/functions/table.ts";
import { plainPolicy } from "../../fakes/policy.ts";
import { openTestGateway } from "../../support/gateway.ts";

/** A gateway whose handlers say who was asked for what. */
async function open(bridgeAddress = "10.0.0.1", table: Table = new Map()) {
  const gateway = await openTestGateway({ bridgeAddress, table });
  const asked: string[] = [];
  const held: ServerResponse[] = [];
  const upgraded: Socket[] = [];
  const handlers = {
    invoke: (_: IncomingMessage, res: ServerResponse, address: string, target: string) => {
      asked.push(`${address} ${target}`);
      if (target === "/hold") held.push(res);
      else res.end(`function ${address} ${target}`);
    },
    upgrade: (_: IncomingMessage, socket: Socket) => void upgraded.push(socket),
    later: (_: IncomingMessage, res: ServerResponse, address: string, target: string) => {
      asked.push(`later ${address} ${target}`);
      res.end();
    },
    admin: (req: IncomingMessage, res: ServerResponse) => {
      asked.push(`admin ${req.url}`);
      res.end(`admin ${req.url}`);
    },
  };
  return { gateway, handlers, asked, held, upgraded, [Symbol.asyncDispose]: () => gateway[Symbol.asyncDispose]() };
}

function send(port: number, path: string, host = "napd.example") {
  const req = request({ host: "127.0.0.1", port, path, headers: { Host: host }, agent: false });
  req.on("error", () => {});
  req.end();
  return req;
}

async function get(port: number, path: string, host?: string): Promise<string> {
  const [res] = await once(send(port, path, host), "response");
  let text = "";
  for await (const chunk of res) text += chunk;
  return text;
}

/** Resolves when a gateway takes no more connections. */
async function eventuallyRefused(port: number): Promise<void> {
  for (;;) {
    const code = await get(port, "/refused?").catch((e: { code: string }) => e.code);
    if (code === "ECONNREFUSED") return;
    await takenUp();
  }
}

/** Long enough for a request to be taken up by a server in this process. */
const takenUp = () => new Promise((resolve) => setTimeout(resolve, 50));

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(setImmediate);
}

suite("the gateway", () => {
  test("sends calls to functions and everything else to the API", async () => {
    await using g = await open();
    g.gateway.serve(g.handlers);
    assert.equal(await get(g.gateway.port, "/function/web/a?b=c"), "function web /a?b=c");
    assert.equal(await get(g.gateway.port, "/system/functions?b=c"), "admin /system/functions?b=c");
    assert.equal(await get(g.gateway.port, "/functionx"), "admin /functionx");
  });

  const table: Table = new Map([["web.fn", new Entry({ name: "web", namespace: "fn" }, plainPolicy, async () => {})]]);

  test("sends calls by host to functions on the bridge", async () => {
    await using g = await open("127.0.0.1", table);
    g.gateway.serve(g.handlers);
    assert.equal(await get(g.gateway.port, "/a", "web:8080"), "function web.fn /a");
    assert.equal(await get(g.gateway.port, "/a", "gateway:8080"), "admin /a");
  });

  test("there, a function's name comes before everything else: each path of its host is its own", async () => {
    await using g = await open("127.0.0.1", table);
    g.gateway.serve(g.handlers);
    assert.equal(await get(g.gateway.port, "/function/other/a", "web:8080"), "function web.fn /function/other/a");
    assert.equal(await get(g.gateway.port, "/system/functions", "web"), "function web.fn /system/functions");
    assert.equal(await get(g.gateway.port, "/function/other/a", "gateway:8080"), "function other /a");
  });

  const hasIPv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ family }) => family === "IPv6"));
  test("knows the bridge also when it listens on all addresses of IPv6", { skip: !hasIPv6 }, async () => {
    await using gateway = await openTestGateway({ bridgeAddress: "127.0.0.1", table }, { host: "::" });
    const invoke = (_: IncomingMessage, res: ServerResponse, address: string) => void res.end(`function ${address}`);
    gateway.serve({
      invoke,
      upgrade: () => assert.fail(),
      later: () => assert.fail(),
      admin: (_, res) => void res.end("admin"),
    });
    assert.equal(await get(gateway.port, "/a", "web:8080"), "function web.fn");
  });

  test("does not look at the host elsewhere: whoever names it so must not reach past the API", async () => {
    await using g = await open("10.0.0.1", table);
    g.gateway.serve(g.handlers);
    assert.equal(await get(g.gateway.port, "/a", "web:8080"), "admin /a");
  });

  test("lets requests wait that come before there is somebody to answer", async () => {
    await using g = await open();
    const early = get(g.gateway.port, "/function/web");
    await takenUp();
    g.gateway.serve(g.handlers);
    assert.equal(await early, "function web /");
  });

  test("forgets who has left while it waited", async () => {
    await using g = await open();
    const leaves = send(g.gateway.port, "/function/left");
    const stays = get(g.gateway.port, "/function/stays");
    await new Promise((resolve) => leaves.once("finish", resolve));
    leaves.destroy();
    await new Promise((resolve) => leaves.once("close", resolve));
    await takenUp();
    g.gateway.serve(g.handlers);
    assert.equal(await stays, "function stays /");
    assert.ok(!g.asked.includes("left /"));
  });

  test("says who cannot listen where, and which setting it is", async () => {
    await using g = await open();
    await assert.rejects(
      openTestGateway({}, { port: g.gateway.port }),
      (e) =>
        isAppError(e, "LISTEN") &&
        e.message.includes(`127.0.0.1:${g.gateway.port}`) &&
        /in use.*gateway\.listen/.test(e.message),
    );
  });

  test("takes a header block of nearly a mebibyte", async () => {
    await using g = await open();
    g.gateway.serve(g.handlers);
    const headers = { Host: "x", "X-Long": "x".repeat(1_000_000) };
    const req = request({ host: "127.0.0.1", port: g.gateway.port, path: "/function/web", headers, agent: false });
    req.end();
    const [res] = await once(req, "response");
    res.resume();
    assert.equal(res.statusCode, 200);
  });

  test("ends after the requests under way, and takes no new ones meanwhile", async () => {
    await using g = await open();
    g.gateway.serve(g.handlers);
    const called = get(g.gateway.port, "/function/web/hold");
    await until(() => g.held.length === 1);
    let ended = false;
    const draining = g.gateway.drain(60_000).then(() => {
      ended = true;
    });
    await eventuallyRefused(g.gateway.port);
    assert.equal(ended, false);
    g.held[0]!.end("whole");
    assert.equal(await called, "whole");
    await draining;
  });

  test("cuts what takes longer than it was given, and may be ended twice", async () => {
    await using g = await open();
    g.gateway.serve(g.handlers);
    const called = assert.rejects(get(g.gateway.port, "/function/web/hold"), { code: "ECONNRESET" });
    await until(() => g.held.length === 1);
    await g.gateway.drain(10);
    await g.gateway.drain(10);
    await called;
  });
});
