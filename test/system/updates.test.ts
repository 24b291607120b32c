/** Functions change while they are called, and replicas come and go: no caller notices. */
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { webImage } from "../support/images.ts";
import { startLoad } from "../support/steady-load.ts";
import { type Answer, eventually, openWorld, type World } from "../support/world.ts";

suite("changes under load", () => {
  const up = new AsyncDisposableStack();
  let world: World;

  before(async () => {
    world = up.use(await openWorld());
    await world.start({ "images.pull_policy": "Never", "functions.ready_timeout": "2s" });
    for (const n of [1, 2])
      await world.import(await webImage(`${world.dir}/${n}.tar`, `docker.io/library/web:${n}`, `${n}\n`));
    await accepted(world.api("POST", "/system/secrets", { name: "key", value: "hush" }));
    await accepted(deploy("POST", {}));
  });
  after(() => up.disposeAsync());

  const deploy = (method: string, more: object) =>
    world.api(method, "/system/functions", { service: "web", image: "web:1", ...more });
  const scale = (replicas: number) => world.api("POST", "/system/scale-function/web", { serviceName: "web", replicas });
  const status = async () => JSON.parse((await world.api("GET", "/system/function/web")).text);
  const info = async () => (await world.call("/function/web/cgi-bin/info")).text;
  const containers = async () => (await world.ctr("containers", "list", "--quiet")).split("\n").filter(Boolean);

  async function accepted(answer: Promise<Answer>): Promise<void> {
    const { status, text } = await answer;
    assert.equal(status, 202, text);
  }

  /** Does it while requests come all the time, each of which must be answered. */
  async function unnoticed(change: () => Promise<unknown>): Promise<void> {
    const load = startLoad(`${world.url}/function/web`, 100);
    try {
      await change();
    } finally {
      const { sent, failed } = await load.stop();
      assert.deepEqual(failed, []);
      assert.ok(sent > 0);
    }
  }

  const updates: { of: string; body: object; shows: () => Promise<void> }[] = [
    {
      of: "the image",
      body: { image: "web:2" },
      shows: async () => assert.equal((await world.call("/function/web")).text, "2\n"),
    },
    {
      of: "the environment",
      body: { envVars: { GREETING: "hello" } },
      shows: async () => assert.match(await info(), /^GREETING=hello$/m),
    },
    {
      of: "the secrets",
      body: { secrets: ["key"] },
      shows: async () => assert.equal((await world.call("/function/web/cgi-bin/say?key")).text, "hush"),
    },
    {
      of: "the limits",
      body: { limits: { memory: "32Mi" } },
      shows: async () => assert.deepEqual((await status()).limits, { memory: "32Mi" }),
    },
    {
      of: "labels and annotations",
      body: { labels: { team: "x" }, annotations: { note: "y" } },
      shows: async () => assert.deepEqual((await status()).labels, { team: "x" }),
    },
    {
      of: "the least number of replicas",
      body: { labels: { "com.openfaas.scale.min": "2" } },
      shows: async () => assert.equal((await status()).availableReplicas, 2),
    },
  ];
  for (const { of, body, shows } of updates)
    test(`an update of ${of}`, async () => {
      await unnoticed(async () => {
        await accepted(deploy("PUT", body));
        await shows();
      });
    });

  test("five updates, one after the other", async () => {
    await unnoticed(async () => {
      for (let n = 0; n < 5; n++) await accepted(deploy("PUT", { envVars: { N: String(n) } }));
    });
    assert.match(await info(), /^N=4$/m);
  });

  const failing: { says: string; more: object; reason: RegExp }[] = [
    {
      says: "whose readiness path is answered with an error",
      more: { annotations: { "com.openfaas.ready.http.path": "/no-such-page" } },
      reason: /did not get ready within 2 s \(GET \/no-such-page answered 404\)/,
    },
    {
      says: "whose readiness path does not answer in time",
      more: {
        annotations: {
          "com.openfaas.ready.http.path": "/cgi-bin/slow?30",
          "com.openfaas.ready.http.timeoutSeconds": "1",
        },
      },
      reason: /did not get ready within 2 s \(GET \/cgi-bin\/slow\?30: no answer within 1 s\)/,
    },
  ];
  for (const { says, more, reason } of failing)
    test(`an update to a version ${says} leaves the old one serving, and says why`, async () => {
      await unnoticed(async () => {
        const answer = await deploy("PUT", more);
        assert.equal(answer.status, 500, answer.text);
        assert.match(answer.text, reason);
      });
      assert.match((await status()).reason, reason);
      assert.match(await info(), /^N=4$/m);
    });

  test("more replicas, and fewer: requests under way are answered before theirs goes", async () => {
    await unnoticed(async () => {
      await accepted(scale(3));
      await eventually(status, (s) => s.availableReplicas === 3);
      // one of them has each of these; two of them are to go
      const slow = Array.from({ length: 6 }, () => world.call("/function/web/cgi-bin/slow?1"));
      await accepted(scale(1));
      assert.equal((await status()).replicas, 1);
      for (const { status, text } of await Promise.all(slow)) assert.deepEqual([status, text], [200, "slept\n"]);
      await eventually(containers, (found) => found.length === 1);
    });
  });

  test("fewer than the least and more than the most are not to be had", async () => {
    await accepted(deploy("PUT", { labels: { "com.openfaas.scale.min": "2", "com.openfaas.scale.max": "3" } }));
    for (const [asked, got] of [
      [1, 2],
      [9, 3],
      [0, 0],
    ] as const) {
      await accepted(scale(asked));
      assert.equal((await status()).replicas, got);
    }
    await accepted(deploy("PUT", {}));
  });

  test("a replica that fails its health check or runs out of memory is replaced, and the status says why", async () => {
    const health = {
      "com.openfaas.health.http.path": "/cgi-bin/health",
      "com.openfaas.health.http.periodSeconds": "1",
      "com.openfaas.health.http.failureThreshold": "1",
      "com.openfaas.ready.http.path": "/",
    };
    // there is no such page, so its first check fails
    await accepted(deploy("PUT", { annotations: health }));
    const ill = await eventually(status, (s) => s.restarts > 0);
    assert.match(ill.lastFailure.reason, /health check 1 times in a row \(GET \/cgi-bin\/health answered 404\)/);

    await world.import(
      await webImage(`${world.dir}/hog.tar`, "docker.io/library/hog:1", "", {
        cmd: ["sh", "-c", "busybox httpd -p 8080 -h /www; exec tail /dev/zero"],
      }),
    );
    await deploy("PUT", { image: "hog:1", limits: { memory: "16Mi" } }); // it may have been ready before it died, or not
    const hog = await eventually(status, (s) => /memory limit/.test(s.lastFailure?.reason ?? s.reason));
    assert.match(hog.lastFailure?.reason ?? hog.reason, /ran out of its memory limit \(16Mi\)/);
  });
});
