import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { Routes, routesOf } from "../../../src/functions/routes.ts";
import type { FunctionSpec } from "../../../src/functions/spec.ts";
import { namespace, openPlatform } from "../../fakes/platform.ts";

const spec = (name: string, route?: string): FunctionSpec => ({
  name,
  namespace: "fn",
  image: "i",
  ...(route !== undefined && { annotations: { "napd.route": route } }),
});
const stored = (name: string, route?: string, previous?: string) => ({
  ...spec(name),
  version: { spec: spec(name, route) },
  previous: previous === undefined ? null : { version: { spec: spec(name, previous) } },
});

suite("annotation napd.route", () => {
  test("lists hosts and prefixes", () => {
    assert.deepEqual(routesOf(spec("f", "a.example, B.example/x\n c.example/")), [
      { host: "a.example", prefix: "" },
      { host: "b.example", prefix: "/x" },
      { host: "c.example", prefix: "" },
    ]);
    assert.deepEqual(routesOf(spec("f")), []);
    assert.deepEqual(routesOf(spec("f", " ")), []);
  });

  for (const text of ["localhost", "a.example, 10.0.0.1", "a.example/..", Array(101).fill("a.example").join(" ")])
    test(`"${text.slice(0, 40)}" is refused`, () =>
      assert.throws(
        () => routesOf(spec("f", text)),
        (e) => isAppError(e, "BAD_FUNCTION") && e.message.includes("napd.route"),
      ));
});

suite("who answers", () => {
  const routes = new Routes([{ host: "fixed.example", prefix: "/a", key: "fixed.fn" }]);
  routes.assign("site.fn", routesOf(spec("site", "shop.example fixed.example")));
  routes.assign("cart.fn", routesOf(spec("cart", "shop.example/cart, shop.example/cart/old, only.example/x")));
  routes.assign("late.fn", routesOf(spec("late", "shop.example fixed.example/a")));

  const rows: [host: string, url: string, key: string | null | undefined, prefix?: string][] = [
    ["shop.example", "/", "site.fn", ""],
    ["shop.example", "/cart", "cart.fn", "/cart"],
    ["shop.example", "/cart?x", "cart.fn", "/cart"],
    ["shop.example", "/cart/", "cart.fn", "/cart"],
    ["shop.example", "/cart/old/x", "cart.fn", "/cart/old"],
    ["shop.example", "/cart/older", "cart.fn", "/cart"],
    ["shop.example", "/carts", "site.fn", ""],
    ["shop.example", "/Cart", "site.fn", ""],
    ["shop.example", "/%63art", "site.fn", ""],
    ["shop.example", "//cart", "site.fn", ""],
    ["shop.example", "/system/functions", "site.fn", ""],
    ["SHOP.Example.:8080", "/", "site.fn", ""],
    ["only.example", "/x", "cart.fn", "/x"],
    ["only.example", "/", null],
    ["only.example", "/system/functions", null],
    ["fixed.example", "/a", "fixed.fn", "/a"],
    ["fixed.example", "/b", "site.fn", ""],
    ["other.example", "/", undefined],
    ["x.shop.example", "/", undefined],
    ["shop", "/", undefined],
    ["", "/", undefined],
  ];
  for (const [host, url, key, prefix] of rows)
    test(`${url} on "${host}": ${key === undefined ? "not routed" : (key ?? "nobody")}`, () => {
      const found = routes.find(host, url);
      assert.equal(found === null ? null : found?.key, key);
      if (found) assert.equal(found.prefix, prefix);
    });

  test("a new list replaces the old one, and gives back what is not in it", () => {
    const r = new Routes();
    r.assign("a.fn", routesOf(spec("a", "a.example b.example")));
    r.assign("a.fn", routesOf(spec("a", "b.example c.example")));
    assert.deepEqual(
      ["a.example", "b.example", "c.example"].map((host) => r.find(host, "/")?.key),
      [undefined, "a.fn", "a.fn"],
    );
    r.assign("a.fn", []);
    assert.equal(r.find("b.example", "/"), undefined);
  });
});

suite("a route that is taken", () => {
  const routes = new Routes([{ host: "fixed.example", prefix: "", key: "f.fn" }]);
  const others = () => [stored("a", "a.example/x"), stored("b", "b.example", "old.example")];
  const taken: [route: string, owner: string][] = [
    ["a.example/x/", "a.fn"],
    ["c.example A.example/x", "a.fn"],
    ["b.example", "b.fn"],
    ["old.example", "b.fn"],
    ["fixed.example", "configuration"],
  ];
  for (const [route, owner] of taken)
    test(`${route} is ${owner}'s`, () =>
      assert.throws(
        () => routes.check(spec("new", route), others),
        (e) => isAppError(e, "ROUTE_TAKEN") && e.message.includes(owner),
      ));

  test("its owner may ask for it again, and everybody for what is beside it", () => {
    routes.check(spec("a", "a.example/x"), others);
    routes.check(spec("new", "a.example, a.example/xy"), others);
    routes.check(spec("fixed.example"), others);
  });

  test("where functions may not ask, the deploy is refused and what was stored before leads nowhere", () => {
    const strict = new Routes([], false);
    assert.throws(
      () => strict.check(spec("a", "a.example"), () => []),
      (e) => isAppError(e, "BAD_FUNCTION") && e.message.includes("gateway.function_routes"),
    );
    strict.check(spec("a"), () => []);
    strict.assign("a.fn", routesOf(spec("a", "a.example")));
    assert.equal(strict.find("a.example", "/"), undefined);
  });
});

suite("the routes of a deployed function", () => {
  const route = (napdRoute: string) => ({ annotations: { "napd.route": napdRoute } });
  const deployed = (service: string, napdRoute: string) => ({ service, image: `${service}:1`, ...route(napdRoute) });

  test("come with it, change with an update, survive a restart, and go with it", async () => {
    await using p = await openPlatform();
    p.backend.push("a:1", {});
    const owner = (host: string) => p.routes.find(host, "/")?.key;
    await p.create(deployed("a", "one.example"));
    assert.equal(owner("one.example"), `a.${namespace}`);
    await p.update(deployed("a", "two.example"));
    assert.deepEqual([owner("one.example"), owner("two.example")], [undefined, `a.${namespace}`]);
    await p.restart();
    assert.equal(owner("two.example"), `a.${namespace}`);
    await p.functions().remove({ name: "a", namespace });
    assert.equal(owner("two.example"), undefined);
  });

  test("come back when an update fails", async () => {
    await using p = await openPlatform();
    p.backend.push("a:1", {});
    await p.create(deployed("a", "one.example"));
    p.backend.push("a:1", { broken: "no" });
    await assert.rejects(p.update(deployed("a", "two.example")));
    assert.equal(p.routes.find("one.example", "/")?.key, `a.${namespace}`);
    assert.equal(p.routes.find("two.example", "/"), undefined);
  });

  test("are refused to a second function, also when both ask at once", async () => {
    await using p = await openPlatform();
    p.backend.push("a:1", {});
    p.backend.push("b:1", {});
    const both = await Promise.allSettled([p.create(deployed("a", "x.example")), p.create(deployed("b", "x.example"))]);
    const failures = both.flatMap((r) => (r.status === "rejected" ? [r.reason] : []));
    assert.equal(failures.length, 1);
    assert.ok(isAppError(failures[0], "ROUTE_TAKEN"));
  });
});
