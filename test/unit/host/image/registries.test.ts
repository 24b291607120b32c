import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Registries, type RegistrySettings } from "../../../../src/host/image/registries.ts";
import { retryAfterMs } from "../../../../src/host/image/transport.ts";

const rows: [sentence: string, settings: RegistrySettings[], host: string, found: string[]][] = [
  ["HTTPS unless told otherwise", [], "ghcr.io", ["https://ghcr.io team/app"]],
  ["Docker Hub by the name of its API", [], "docker.io", ["https://registry-1.docker.io team/app"]],
  ["loopback without TLS", [], "127.0.0.1:5000", ["http://127.0.0.1:5000 team/app"]],
  ["localhost without TLS", [], "localhost", ["http://localhost team/app"]],
  ["all of 127/8", [], "127.8.9.1", ["http://127.8.9.1 team/app"]],
  ["a name that begins like one", [], "127.0.0.1.evil.io", ["https://127.0.0.1.evil.io team/app"]],
  [
    "loopback with TLS when set",
    [{ host: "localhost", mirrors: [], plainHttp: false }],
    "localhost",
    ["https://localhost team/app"],
  ],
  [
    "plain HTTP when set",
    [{ host: "reg:5000", mirrors: [], plainHttp: true }],
    "reg:5000",
    ["http://reg:5000 team/app"],
  ],
  [
    "mirrors first, in order, then the host",
    [
      { host: "docker.io", mirrors: ["http://10.0.0.1:5000", "harbor.lan/hub/", "127.0.0.1:1"] },
      { host: "harbor.lan", mirrors: ["not.asked"], plainHttp: true },
    ],
    "docker.io",
    [
      "http://10.0.0.1:5000 team/app",
      "http://harbor.lan hub/team/app",
      "http://127.0.0.1:1 team/app",
      "https://registry-1.docker.io team/app",
    ],
  ],
];

suite("registry settings", () => {
  for (const [sentence, settings, host, found] of rows)
    test(sentence, () => {
      const endpoints = new Registries(settings).endpoints(host, "team/app");
      assert.deepEqual(
        endpoints.map((e) => `${e.origin} ${e.repository}`),
        found,
      );
      assert.deepEqual(endpoints.map((e) => e.mirror).lastIndexOf(false), endpoints.length - 1);
    });

  test("may be others from one moment to the next, with connections of their own", async () => {
    await using registries = new Registries([]);
    const before = await registries.agent("reg:5000");
    registries.use([{ host: "reg:5000", mirrors: ["m"], plainHttp: true }]);
    assert.deepEqual(
      registries.endpoints("reg:5000", "app").map(({ origin }) => origin),
      ["https://m", "http://reg:5000"],
    );
    assert.notEqual(await registries.agent("reg:5000"), before);
    assert.equal(before.closed, true);
  });

  test("Retry-After in seconds and as a date, bounded", () => {
    const now = Date.parse("2026-01-01T00:00:00Z");
    assert.equal(retryAfterMs(undefined, now), 0);
    assert.equal(retryAfterMs("3", now), 3000);
    assert.equal(retryAfterMs("99999", now), 20_000);
    assert.equal(retryAfterMs("Thu, 01 Jan 2026 00:00:05 GMT", now), 5000);
    assert.equal(retryAfterMs("Wed, 31 Dec 2025 00:00:00 GMT", now), 0);
    assert.equal(retryAfterMs("soon", now), 0);
  });
});
