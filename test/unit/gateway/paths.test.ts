/** No spelling of a path reaches the API without the password, nor a function by another name. The real API behind the real gateway. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { type ApiOptions, openApi } from "../../../src/admin/api.ts";
import { openLog } from "../../../src/base/log.ts";
import { Routes } from "../../../src/functions/routes.ts";
import { SleepStats } from "../../../src/functions/sleep-stats.ts";
import type { Table } from "../../../src/functions/table.ts";
import { openInvoke } from "../../../src/invoke/invoke.ts";
import { call, openTestGateway, recorder } from "../../support/gateway.ts";

/** Whoever calls anything of it has come too far: nothing may be asked of it without the password. */
function forbidden(what: string): never {
  return new Proxy(() => {}, {
    get: (_, name) => (typeof name === "string" ? forbidden(`${what}.${name}`) : undefined),
    apply() {
      throw new Error(`${what} was reached`);
    },
  }) as never;
}

async function open(routes = new Routes()) {
  const given: Partial<ApiOptions> = {
    credentials: { user: "admin", password: "secret" },
    log: openLog("silent"),
    countRequest: () => {},
  };
  const admin = await openApi(
    new Proxy(given, { get: (o, name) => o[name as keyof ApiOptions] ?? forbidden(String(name)) }) as ApiOptions,
  );
  const gateway = await openTestGateway({ routes });
  const handlers = recorder();
  gateway.serve({ ...handlers, admin });
  return { gateway, seen: handlers.seen, [Symbol.asyncDispose]: () => gateway[Symbol.asyncDispose]() };
}

/** Sends a request line as it is, without credentials, and gives the status; a redirect has to stay here. */
async function ask(port: number, method: string, target: string, host = "napd.example"): Promise<number> {
  using caller = await call(port, `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  await caller.ended;
  assert.equal(caller.statuses().length, 1, caller.text());
  const location = /^location: (.*)\r$/im.exec(caller.text())?.[1];
  if (location !== undefined) assert.match(location, /^\/(?![/\\])/, `${target} leads elsewhere`);
  return caller.statuses()[0]!;
}

suite("no spelling of a path of the API does without the password", () => {
  const spellings = [
    "/system/functions",
    "/system/functions/",
    "/system/functions?x=/function/f",
    "//system/functions",
    "///system//functions",
    "/./system/functions",
    "/x/../system/functions",
    "/system/./functions",
    "/system/x/../functions",
    "/healthz/../system/functions",
    "/%2e/system/functions",
    "/x/%2e%2e/system/functions",
    "/%2fsystem/functions",
    "/%2Fsystem%2Ffunctions",
    "/system%2ffunctions",
    "/%73ystem/functions",
    "/%53ystem/functions",
    "/%2573ystem/functions",
    "/system/%66unctions",
    "/SYSTEM/functions",
    "/System/Functions",
    "/;/system/functions",
    "/system;x/functions",
    "/system/functions;x=y",
    "/;x/../system/functions",
    "/\\system\\functions",
    "/system\\functions",
    "/%5csystem/functions",
    "/%00/system/functions",
    "/system/functions%00",
    "/system/functions%0d%0a",
    "/system/functions%20",
    "/%c0%af/system/functions",
    "/%c0%af..%c0%afsystem/functions",
    "/%e0%80%af/system/functions",
    "/%c0%ae%c0%ae/system/functions",
    "/%u002fsystem/functions",
    "/system/functions%",
    "/system/functions%3f",
    "/functionx/../system/functions",
    "/functions/%2e%2e/system/functions/../../../system/functions",
    "//evil.example/..",
    "//\\evil.example",
    "/./\\evil.example",
    "/x/..//evil.example",
    "/.//%5cevil.example",
    "/%2e//evil.example",
    "http://napd.example/system/functions",
    "HTTP://napd.example//system/functions",
  ];
  for (const method of ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "PROPFIND"])
    test(`${method} by ${spellings.length} spellings`, async () => {
      await using g = await open();
      for (const target of spellings) {
        const status = await ask(g.gateway.port, method, target);
        assert.ok([301, 400, 401, 404, 405].includes(status), `${method} ${target}: ${status}`);
      }
      assert.deepEqual(g.seen, []);
    });

  test("what is spelt right, and only that, asks for it", async () => {
    await using g = await open();
    assert.equal(await ask(g.gateway.port, "GET", "/system/functions"), 401);
    assert.equal(await ask(g.gateway.port, "GET", "/%73ystem/functions"), 401);
    assert.equal(await ask(g.gateway.port, "GET", "/healthz"), 200);
  });
});

suite("a path below a function is the function's, whatever it says", () => {
  const rows: [target: string, sees: string][] = [
    ["/function/a/../../system/functions", "f a /../../system/functions"],
    ["/function/a/%2e%2e/%2e%2e/system/functions", "f a /%2e%2e/%2e%2e/system/functions"],
    ["/function/a/..%2f..%2fsystem", "f a /..%2f..%2fsystem"],
    ["/function/a//system/functions", "f a //system/functions"],
    ["/function/a\\..\\..\\system", "f a\\..\\..\\system /"],
    ["/function/../system/functions", "f .. /system/functions"],
    ["/function/%2e%2e/system/functions", "f .. /system/functions"],
    ["/function/..%2fsystem%2ffunctions", "f ../system/functions /"],
    ["/function//system/functions", "f  /system/functions"],
    ["/function/a;/system", "f a; /system"],
    ["/function/a%00b/x", "f a\0b /x"],
    ["/function/%c0%ae%c0%ae/system", "f %c0%ae%c0%ae /system"],
    ["http://napd.example/function/a/../../system", "f a /../../system"],
  ];
  for (const [target, sees] of rows)
    test(target, async () => {
      await using g = await open();
      await ask(g.gateway.port, "GET", target);
      assert.deepEqual(
        g.seen.map((s) => s.what),
        [sees],
      );
    });
});

suite("a host that leads to functions has nothing else", () => {
  const routes = new Routes([
    { host: "site.example", prefix: "", key: "site.fn" },
    { host: "shop.example", prefix: "/cart", key: "cart.fn" },
  ]);
  const rows: [host: string, target: string, sees: string | number][] = [
    ["site.example", "/", "f site.fn /"],
    ["site.example", "/system/functions", "f site.fn /system/functions"],
    ["site.example:443", "/healthz", "f site.fn /healthz"],
    ["site.example", "/function/other/x", "f site.fn /function/other/x"],
    ["site.example", "http://site.example/function/other", "f site.fn /function/other"],
    ["shop.example", "/cart/a?b", "f cart.fn /a?b"],
    ["shop.example", "/cart?b", "f cart.fn /?b"],
    ["shop.example", "/cart/../system/functions", "f cart.fn /../system/functions"],
    ["shop.example", "/system/functions", 404],
    ["shop.example", "/healthz", 404],
    ["shop.example", "/function/cart", 404],
    ["shop.example", "/carts", 404],
    ["other.example", "/healthz", 200],
    ["other.example", "/system/functions", 401],
    ["other.example", "/cart", 404],
  ];
  for (const [host, target, sees] of rows)
    test(`${target} on ${host}: ${sees}`, async () => {
      await using g = await open(routes);
      const status = await ask(g.gateway.port, "GET", target, host);
      assert.deepEqual(
        g.seen.map((s) => s.what),
        typeof sees === "string" ? [sees] : [],
      );
      if (typeof sees === "number") assert.equal(status, sees);
    });

  test("the function is told which prefix was taken off, and nobody else can tell it", async () => {
    await using g = await open(routes);
    const ask = async (host: string, target: string) => {
      const head = `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nx-forwarded-prefix: /false\r\nConnection: close\r\n\r\n`;
      using caller = await call(g.gateway.port, head);
      await caller.ended;
      const raw = g.seen.at(-1)!.req.rawHeaders;
      return raw.filter((_, i) => i % 2 === 1 && raw[i - 1]!.toLowerCase() === "x-forwarded-prefix");
    };
    assert.deepEqual(await ask("shop.example", "/cart/a"), ["/cart"]);
    assert.deepEqual(await ask("site.example", "/a"), []);
    assert.deepEqual(await ask("other.example", "/function/f"), ["/false"]);
  });
});

suite("a name that no function can have is a 404", () => {
  const table: Table = new Map();
  const calls = openInvoke({
    table,
    defaultNamespace: "fn",
    thaw: async () => {},
    waits: new SleepStats().waits,
    tunnelIdleMs: 1000,
  });
  const names = [
    ".fn",
    ".openfaas-fn",
    "",
    ".",
    "..",
    "a.",
    "a..fn",
    "a.b.fn",
    "A",
    "a%2Fb",
    "a%00",
    "%c0%ae",
    "a%",
    "a b",
  ];
  for (const name of names)
    test(`/function/${name}`, async () => {
      await using gateway = await openTestGateway({ table });
      gateway.serve({ ...calls, later: () => assert.fail(), admin: () => assert.fail("it is no path of the API") });
      const status = await ask(gateway.port, "GET", `/function/${name.replace(" ", "%20")}`);
      assert.equal(status, 404);
    });
});
