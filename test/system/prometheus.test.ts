/** Debian's Prometheus scrapes napd; its Alertmanager scales a function through /system/alert, as OpenFaaS' rule has it. */
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { startChild, waitReady } from "../../scripts/child.ts";
import { freePort } from "../support/free-port.ts";
import { webImage } from "../support/images.ts";
import { eventually, openWorld, type World } from "../support/world.ts";

const image = "docker.io/library/web:1";

/** Calls of one second against 5: the rule of contracts/api.md §2.8 with a shorter memory, so that the test is short. */
const rules = `groups:
- name: load
  rules:
  - alert: APIHighInvocationRate
    expr: sum(rate(gateway_function_invocation_total{code="200"}[4s])) by (function_name) > 5
    labels: { service: gateway }
`;

suite("Prometheus and Alertmanager", () => {
  test("scrape napd and scale a function up and down", async () => {
    await using up = new AsyncDisposableStack();
    const world = up.use(await openWorld());
    await world.start({ "images.pull_policy": "Never", "scale.auto": "off" });
    await world.import(await webImage(`${world.dir}/web.tar`, image, "hello\n"));
    const labels = { "com.openfaas.scale.min": "1", "com.openfaas.scale.max": "3", "com.openfaas.scale.factor": "100" };
    assert.equal((await world.api("POST", "/system/functions", { service: "web", image, labels })).status, 202);
    const alertmanager = await startAlertmanager(up, world);
    const prometheus = await startPrometheus(up, world, alertmanager);

    const replicas = async () => JSON.parse((await world.api("GET", "/system/function/web")).text).replicas as number;
    let calling = true;
    const load = (async () => {
      while (calling) assert.equal((await world.call("/function/web")).status, 200);
    })();
    try {
      await eventually(replicas, (n) => n === 3, 60_000);
    } finally {
      calling = false;
      await load;
    }
    await eventually(replicas, (n) => n === 1, 60_000);

    const name = `web.${world.namespace}`;
    const [counted] = await query(prometheus, `gateway_function_invocation_total{function_name="${name}",code="200"}`);
    const status = JSON.parse((await world.api("GET", "/system/functions")).text)[0];
    assert.equal(Number(counted), status.invocationCount, "Prometheus has counted what napd has");
    const count = () => query(prometheus, `gateway_service_count{function_name="${name}"}`);
    await eventually(count, ([value]) => value === "1");
  });
});

async function startAlertmanager(up: AsyncDisposableStack, world: World): Promise<number> {
  const dir = `${world.dir}/alertmanager`;
  await mkdir(dir);
  const port = await freePort();
  const password = (await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8")).trim();
  await writeFile(
    `${dir}/alertmanager.yml`,
    `route: { receiver: scale, group_by: [alertname, function_name], group_wait: 1s, group_interval: 1s, repeat_interval: 1s }
receivers:
- name: scale
  webhook_configs:
  - url: ${world.url}/system/alert
    send_resolved: true
    http_config: { basic_auth: { username: admin, password: "${password}" } }
`,
    { mode: 0o600 },
  );
  const args = [`--config.file=${dir}/alertmanager.yml`, `--storage.path=${dir}`, "--cluster.listen-address="];
  await startServer(up, "prometheus-alertmanager", [...args, `--web.listen-address=127.0.0.1:${port}`], dir, port);
  return port;
}

async function startPrometheus(up: AsyncDisposableStack, world: World, alertmanager: number): Promise<number> {
  const dir = `${world.dir}/prometheus`;
  await mkdir(dir);
  const port = await freePort();
  await writeFile(`${dir}/rules.yml`, rules);
  const { host } = new URL(world.metricsUrl);
  await writeFile(
    `${dir}/prometheus.yml`,
    `global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [rules.yml]
alerting: { alertmanagers: [{ static_configs: [{ targets: ["127.0.0.1:${alertmanager}"] }] }] }
scrape_configs:
- { job_name: napd, static_configs: [{ targets: ["${host}"] }] }
`,
  );
  const args = [`--config.file=${dir}/prometheus.yml`, `--storage.tsdb.path=${dir}/data`];
  await startServer(up, "prometheus", [...args, `--web.listen-address=127.0.0.1:${port}`], dir, port);
  return port;
}

async function startServer(
  up: AsyncDisposableStack,
  program: string,
  args: string[],
  dir: string,
  port: number,
): Promise<void> {
  const logFile = `${dir}/log`;
  const child = up.use(await startChild(program, args, { logFile }));
  const ready = () =>
    fetch(`http://127.0.0.1:${port}/-/ready`).then(
      ({ status }) => status === 200,
      () => false,
    );
  await waitReady(child, ready, { what: program, timeoutMs: 30_000, logFile });
}

/** The values of an instant query. */
async function query(port: number, expression: string): Promise<string[]> {
  const answer = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`);
  const { data } = (await answer.json()) as { data: { result: { value: [number, string] }[] } };
  return data.result.map(({ value }) => value[1]);
}
