/** Requests that nobody would write: whatever comes, the answer is one of a client's mistake or a success. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { serveApi } from "../../fakes/api.ts";
import { openPlatform } from "../../fakes/platform.ts";

/** The same numbers for the same seed (mulberry32), so that a failure can be had again. */
function randomness(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const routes: [method: string, path: string, body: object][] = [
  ["POST", "functions", { service: "web", image: "web:1", namespace: "fn", envVars: { A: "b" }, secrets: ["key"] }],
  ["PUT", "functions", { service: "web", image: "web:1", labels: {}, annotations: {}, limits: { memory: "64Mi" } }],
  ["DELETE", "functions", { functionName: "web", namespace: "fn" }],
  ["POST", "scale-function/web", { serviceName: "web", replicas: 1, namespace: "fn" }],
  ["POST", "secrets", { name: "key", namespace: "fn", value: "x", rawValue: "eA==" }],
  ["PUT", "secrets", { name: "key", namespace: "fn", value: "x", rawValue: "eA==" }],
  ["DELETE", "secrets", { name: "key", namespace: "fn" }],
  ["POST", "namespace/", { name: "team", labels: { openfaas: "1" }, annotations: { openfaas: "1" } }],
  ["PUT", "namespace/team", { name: "team", labels: { openfaas: "1" }, annotations: {} }],
  ["DELETE", "namespaces/team", { name: "team", labels: { openfaas: "1" } }],
];

const oddities: unknown[] = [
  ...[null, true, 0, -1, 1.5, 1e308, "", "\0", "..", "../../x", "a--b", "Ünï", "x".repeat(300), "0", "-5Mi", "1e999"],
  ...[[], {}, [null], [[[]]], { a: null }, { a: { b: [] } }, { "": "" }, { "com.openfaas.scale.min": "9999999" }],
  ...[
    { "napd.timeout": "-1s" },
    { "com.openfaas.scale.max": "0" },
    { memory: "1Ei", cpu: "1e9" },
    ["key", 5],
    ["../x"],
  ],
];

suite("any request", () => {
  test("is answered with success or with the client's mistake, and napd goes on", async () => {
    await using p = await openPlatform();
    p.backend.push("web:1");
    await using api = await serveApi({ ...p, functions: p.functions() });
    for (let seed = 0; seed < 1500; seed++) {
      const random = randomness(seed);
      const [method, path, base] = routes[random(routes.length)]!;
      const body: Record<string, unknown> = { ...base };
      for (let n = random(3); n >= 0; n--) {
        const keys = [...Object.keys(body), "__proto__", "LABELS", "limits", "requests", "annotations", "envProcess"];
        const key = keys[random(keys.length)]!;
        Object.defineProperty(body, key, {
          value: oddities[random(oddities.length)],
          enumerable: true,
          writable: true,
        });
      }
      let bytes = Buffer.from(JSON.stringify(body));
      if (random(4) === 0) bytes = bytes.subarray(0, random(bytes.length));
      if (random(6) === 0 && bytes.length > 0) bytes[random(bytes.length)] = random(256);
      const { status, text } = await api.ask(method, `/system/${path}`, { body: bytes });
      assert.ok(status >= 200 && status < 500, `seed ${seed}: ${method} ${path} ${bytes}: ${status} ${text}`);
    }
    assert.equal((await api.ask("GET", "/system/functions")).status, 200);
  });
});
