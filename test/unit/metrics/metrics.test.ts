import assert from "node:assert/strict";
import { request } from "node:http";
import { suite, test } from "node:test";
import { CallStats, durationBounds } from "../../../src/functions/call-stats.ts";
import { SleepStats, waitBounds } from "../../../src/functions/sleep-stats.ts";
import type { FunctionSample, UsageSample } from "../../../src/metrics/functions.ts";
import { openMetrics } from "../../../src/metrics/registry.ts";
import { openMetricsServer } from "../../../src/metrics/server.ts";

function sample(calls: CallStats): FunctionSample {
  return {
    key: "hello.fn",
    name: "hello",
    namespace: "fn",
    calls,
    desired: 3,
    available: 2,
    minReplicas: 1,
    target: { type: "rps", load: 50 },
    states: { ready: 1, frozen: 1, starting: 1 },
  };
}

function exposed(functions: FunctionSample[], usage: UsageSample[] = [], sleep = new SleepStats()) {
  return openMetrics({
    functions: () => functions,
    usage: async () => usage,
    durationBounds,
    sleep,
    waitBounds,
    queue: { depths: async () => [], counts: () => new Map(), inFlight: () => [] },
    now: () => 0,
    version: "1.2.3",
  });
}

suite("what is exposed", () => {
  test("calls by status code, under the gateway's names", async () => {
    const calls = new CallStats();
    for (const [code, seconds] of [
      [200, 0.004],
      [200, 0.3],
      [500, 60],
    ] as const) {
      calls.begin();
      calls.end(code, seconds);
    }
    calls.begin();
    const text = await exposed([sample(calls)]).registry.metrics();
    const wanted = [
      "# TYPE gateway_function_invocation_total counter",
      'gateway_function_invocation_total{function_name="hello.fn",code="200"} 2',
      'gateway_function_invocation_total{function_name="hello.fn",code="500"} 1',
      "# TYPE gateway_functions_seconds histogram",
      'gateway_functions_seconds_bucket{function_name="hello.fn",code="200",le="0.005"} 1',
      'gateway_functions_seconds_bucket{function_name="hello.fn",code="200",le="0.25"} 1',
      'gateway_functions_seconds_bucket{function_name="hello.fn",code="200",le="0.5"} 2',
      'gateway_functions_seconds_bucket{function_name="hello.fn",code="200",le="+Inf"} 2',
      'gateway_functions_seconds_sum{function_name="hello.fn",code="200"} 0.304',
      'gateway_functions_seconds_count{function_name="hello.fn",code="200"} 2',
      'gateway_functions_seconds_bucket{function_name="hello.fn",code="500",le="10"} 0',
      'gateway_functions_seconds_bucket{function_name="hello.fn",code="500",le="+Inf"} 1',
      'gateway_function_invocation_started{function_name="hello.fn"} 4',
      'gateway_function_invocation_inflight{function_name="hello.fn"} 1',
      'gateway_service_count{function_name="hello.fn"} 3',
      'gateway_service_ready_count{function_name="hello.fn"} 2',
      'gateway_service_min{function_name="hello.fn"} 1',
      'gateway_service_target_load{function_name="hello.fn",scaling_type="rps"} 50',
      'napd_replicas{function_name="hello.fn",state="frozen"} 1',
      'napd_info{version="1.2.3"} 1',
    ];
    for (const line of wanted) assert.ok(text.split("\n").includes(line), line);
    assert.match(text, /^process_resident_memory_bytes \d+$/m);
  });

  test("what replicas use, under the names that dashboards know", async () => {
    const usage = [{ name: "hello", namespace: "fn", cpuSeconds: 1.5, memoryBytes: 4096 }];
    const text = await exposed([], usage).registry.metrics();
    assert.match(text, /^pod_cpu_usage_seconds_total\{function_name="hello",namespace="fn"\} 1\.5$/m);
    assert.match(text, /^pod_memory_working_set_bytes\{function_name="hello",namespace="fn"\} 4096$/m);
  });

  test("how functions fall asleep and wake up", async () => {
    const sleep = new SleepStats();
    const backend = sleep.watching({
      can: { freeze: true },
      freeze: async ({ number }) => {
        if (number === 9) throw new Error("it moves");
      },
      thaw: async () => {},
    });
    const replica = { name: "hello", namespace: "fn", generation: 1, number: 0 };
    await backend.freeze(replica);
    await backend.thaw(replica);
    await assert.rejects(backend.freeze({ ...replica, number: 9 }), /it moves/);
    sleep.waits.frozen.add(0.002);
    const text = await exposed([], [], sleep).registry.metrics();
    const wanted = [
      "napd_freezes_total 1",
      "napd_freeze_failures_total 1",
      "napd_thaws_total 1",
      'napd_wake_wait_seconds_bucket{from="frozen",le="0.001"} 0',
      'napd_wake_wait_seconds_bucket{from="frozen",le="0.0025"} 1',
      'napd_wake_wait_seconds_count{from="frozen"} 1',
      'napd_wake_wait_seconds_count{from="stopped"} 0',
    ];
    for (const line of wanted) assert.ok(text.split("\n").includes(line), line);
  });

  test("a function that is gone is gone here too", async () => {
    const functions = [sample(new CallStats())];
    const { registry } = exposed(functions);
    assert.match(await registry.metrics(), /gateway_service_count\{/);
    functions.pop();
    assert.doesNotMatch(await registry.metrics(), /gateway_service_count\{/);
  });

  test("requests of the API by route, under the names of both listeners of OpenFaaS", async () => {
    const { registry, countRequest } = exposed([]);
    countRequest("GET", "/system/function/:name", 200, 0.01);
    const text = await registry.metrics();
    const wanted = [
      'http_requests_total{method="GET",path="/system/function/:name",status="200"} 1',
      'http_request_duration_seconds_count{method="GET",path="/system/function/:name",status="200"} 1',
      'provider_http_requests_total{code="200",method="GET",path="/system/function/:name"} 1',
      'provider_http_request_duration_seconds_count{code="200",method="GET",path="/system/function/:name"} 1',
    ];
    for (const line of wanted) assert.ok(text.split("\n").includes(line), line);
  });

  test("a function that answers with every code there is stays within bounds", () => {
    const calls = new CallStats();
    for (let code = 100; code < 1000; code++) {
      calls.begin();
      calls.end(code, 0.1);
    }
    assert.ok(calls.byCode.size <= 64);
    assert.equal(
      [...calls.byCode.values()].reduce((all, { count }) => all + count, 0),
      900,
    );
  });
});

suite("the listener", () => {
  const table = [
    { method: "GET", path: "/metrics", status: 200, type: /^text\/plain; version=0\.0\.4/ },
    { method: "GET", path: "/metrics?x=1", status: 200, type: /^text\/plain; version=0\.0\.4/ },
    { method: "GET", path: "/healthz", status: 200, type: /^text\/plain/ },
    { method: "POST", path: "/healthz", status: 405, type: /^text\/plain/ },
    { method: "GET", path: "/system/functions", status: 404, type: /^text\/plain/ },
  ];
  for (const { method, path, status, type } of table)
    test(`${method} ${path}: ${status}`, async () => {
      await using server = await openMetricsServer(exposed([]).registry, { host: "127.0.0.1", port: 0 });
      const answer = await new Promise<{ status?: number; type?: string }>((resolve, reject) => {
        request({ host: "127.0.0.1", port: server.port, method, path }, (res) => {
          res.resume();
          res.once("end", () => resolve({ status: res.statusCode, type: res.headers["content-type"] }));
        })
          .once("error", reject)
          .end();
      });
      assert.equal(answer.status, status);
      assert.match(answer.type ?? "", type);
    });

  test("a port in use is told, with the setting", async () => {
    const { registry } = exposed([]);
    await using first = await openMetricsServer(registry, { host: "127.0.0.1", port: 0 });
    await assert.rejects(openMetricsServer(registry, { host: "127.0.0.1", port: first.port }), /metrics\.listen/);
  });
});
