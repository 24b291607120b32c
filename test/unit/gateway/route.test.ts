import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Entry, type Table } from "../../../src/functions/table.ts";
import { functionRoute, hostRoute } from "../../../src/gateway/route.ts";
import { plainPolicy } from "../../fakes/policy.ts";

suite("a path", () => {
  const calls: [url: string, address: string, target: string, says: string][] = [
    ["/function/web", "web", "/", "without a path of its own the function sees /"],
    ["/function/web/", "web", "/", "a slash at the end changes nothing"],
    ["/function/web/a/b/", "web", "/a/b/", "what follows the name is the path"],
    ["/function/web?a=b&a=c", "web", "/?a=b&a=c", "a query may follow the name at once"],
    ["/function/web?", "web", "/?", "also an empty one"],
    ["/function/web/?a=/b", "web", "/?a=/b", "a slash in the query belongs to it"],
    ["/function/web?a=/function/x", "web", "/?a=/function/x", "a path in the query does as well"],
    ["/function/web.fn/x", "web.fn", "/x", "the namespace belongs to the address"],
    ["/function/a.b.fn", "a.b.fn", "/", "dots are not looked at here"],
    ["/function/en%76", "env", "/", "the name is decoded"],
    ["/function/web%2Efn", "web.fn", "/", "the name is decoded, also its dot"],
    ["/function/web/a%2Fb", "web", "/a%2Fb", "a coded slash stays coded"],
    ["/function/web/100%25", "web", "/100%25", "a coded percent sign stays coded"],
    ["/function/web/a%3Fb%23c", "web", "/a%3Fb%23c", "coded question and number signs stay coded"],
    ["/function/web//x", "web", "//x", "empty parts stay"],
    ["/function/web/../x", "web", "/../x", "dots of a path stay: it is the function's"],
    ["/function/web%2Fx", "web/x", "/", "a coded slash in the name makes it a name that nobody has"],
    ["/function/web%3Fx", "web?x", "/", "as does a question mark"],
    ["/function/we%b", "we%b", "/", "what is not coded right stays as it is"],
    ["/function/", "", "/", "no name is the name of nobody"],
    ["/function//x", "", "/x", "no name, with a path"],
    ["/function/Web", "Web", "/", "capitals are not changed"],
  ];
  for (const [url, address, target, says] of calls)
    test(`${url} calls "${address}" with ${target}: ${says}`, () =>
      assert.deepEqual(functionRoute(url), { address, target }));

  const others = [
    "/",
    "",
    "/function",
    "/functions/web",
    "/Function/web",
    "/system/functions",
    "/healthz",
    "/x/function/web",
    "*",
    "//function/web",
    "/async-function/web",
    "?/function/web",
  ];
  for (const url of others) test(`"${url}" calls no function`, () => assert.equal(functionRoute(url), null));
});

suite("a host", () => {
  const table: Table = new Map();
  for (const id of [
    { name: "web", namespace: "fn" },
    { name: "web", namespace: "team" },
    { name: "web", namespace: "svc" },
    { name: "gateway", namespace: "fn" }, // may be deployed, and does not get what is meant for ours
  ]) {
    const entry = new Entry(id, plainPolicy, async () => {});
    table.set(entry.key, entry);
  }

  const rows: [host: string, key: string | null][] = [
    ["web", "web.fn"],
    ["web:8080", "web.fn"],
    ["WEB:8080", "web.fn"],
    ["web.fn:8080", "web.fn"],
    ["web.team", "web.team"],
    ["web.team.svc.cluster.local:8080", "web.team"],
    ["web.team.svc.cluster.local.:8080", "web.team"],
    ["gateway:8080", null],
    ["gateway.openfaas:8080", null],
    ["10.63.0.1:8080", null],
    ["other", null],
    ["web.other", null],
    ["x.web.fn", null],
    ["web.team.svc", "web.team"],
    ["web.svc.cluster.local", null],
    ["web.svc", "web.svc"],
    ["web.fn.", "web.fn"],
    ["gateway.", null],
    ["gateway.openfaas.svc.cluster.local", null],
    ["[::1]:8080", null],
    ["", null],
  ];
  for (const [host, key] of rows)
    test(`"${host}" is ${key === null ? "no function" : key}`, () =>
      assert.deepEqual(hostRoute(host, "/a?b", table, "fn"), key === null ? null : { address: key, target: "/a?b" }));
});
