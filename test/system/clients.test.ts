/**
 * What the OpenFaaS command line sends to functions and for logs, as it was recorded (test/cases/cli-wire.json), is
 * sent again to a real napd: each request once, answered as that client needs it. What it sends to the rest of the API
 * is in test/unit/admin/clients.test.ts.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { baseLayer, writeOciArchive } from "../../scripts/oci-image.ts";
import { openWorld, type World } from "../support/world.ts";

interface Recorded {
  method: string;
  path: string;
  query: string;
  headers: Record<string, string | string[]>;
  body: string;
}
interface Cases {
  scenarios: { id: string; observed: Record<string, string | { steps: { requests?: Recorded[] }[] }> }[];
}
const cases: Cases = JSON.parse(readFileSync(`${import.meta.dirname}/../cases/cli-wire.json`, "utf8"));

/** Each request once, with the first scenario that has it. */
function recorded(pattern: RegExp): { id: string; request: Recorded }[] {
  const distinct = new Map<string, { id: string; request: Recorded }>();
  for (const { id, observed } of cases.scenarios)
    for (const seen of Object.values(observed))
      for (const { requests = [] } of typeof seen === "string" ? [] : seen.steps)
        for (const request of requests.filter((r) => pattern.test(r.path))) {
          const { method, path, query, body } = request;
          const key = JSON.stringify([method, path, query, body]);
          if (!distinct.has(key)) distinct.set(key, { id, request });
        }
  return [...distinct.values()];
}

const up = new AsyncDisposableStack();
let world: World;
/** Says how it was called, then what it was sent. */
const echo = `#!/bin/sh
echo "$Http_Method $Http_Query $Http_Content_Type"
cat
echo called >&2
`;

let authorization: string;

before(async () => {
  world = up.use(await openWorld());
  await world.start({ "images.pull_policy": "Never", "functions.grace": "100ms" });
  const password = await readFile(`${world.paths.data}/credentials/basic-auth-password`, "utf8");
  authorization = `Basic ${Buffer.from(`admin:${password.trim()}`).toString("base64")}`;
  await world.api("POST", "/system/namespace/", { name: "dev", labels: { openfaas: "1" } });
  const file = `${world.dir}/echo.tar`;
  const layers = [await baseLayer(), [{ path: "/echo", content: echo, mode: 0o755 }]];
  await writeOciArchive(file, {
    ref: "docker.io/library/echo:1",
    layers,
    env: ["fprocess=/echo", "combine_output=false"],
  });
  const archive = await readFile(file);
  for (const namespace of [world.namespace, "dev"]) {
    const headers = { authorization };
    const upload = await world.call(`/system/images?namespace=${namespace}`, {
      method: "POST",
      headers,
      body: archive,
    });
    assert.equal(upload.status, 201, upload.text);
  }
  const image = { image: "echo:1", annotations: { "napd.watchdog": "inject" } };
  const inDev = ["fn", "full", "figlet"].map((service) => ({ service, namespace: "dev", ...image }));
  const others = ["fn", "f", "full", "figlet"].map((service) => ({ service, ...image }));
  const deployed = [...inDev, ...others].map((deployment) => world.api("POST", "/system/functions", deployment));
  for (const answer of await Promise.all(deployed)) assert.equal(answer.status, 202, answer.text);
});
after(() => up.disposeAsync());

const text = (headers: Recorded["headers"], name: string) => [headers[name] ?? []].flat()[0] ?? "";

suite("calls of the OpenFaaS command line", () => {
  for (const { id, request } of recorded(/^\/(async-)?function\//))
    test(`${id}: ${request.method} ${request.path}?${request.query}`, async () => {
      const { method, query, body } = request;
      const { "Content-Length": _, ...headers } = request.headers;
      const path = request.path.replace(/\.openfaas-fn$/, `.${world.namespace}`);
      const answer = await world.call(`${path}${query && `?${query}`}`, {
        method,
        headers: Object.entries(headers).flatMap(([name, values]) =>
          [values].flat().map((v): [string, string] => [name, v]),
        ),
        ...(body !== "" && { body }),
      });
      // names of namespaces hold no dot, so that fn.dev.openfaas-fn is a function fn.dev: there is none
      if (/\.dev\.openfaas-fn$/.test(request.path)) return assert.equal(answer.status, 404);
      if (path.startsWith("/async-function/")) {
        assert.deepEqual([answer.status, answer.text], [202, ""]);
        assert.ok(answer.headers.get("x-call-id"));
        return;
      }
      assert.equal(answer.status, 200, answer.text);
      assert.ok(answer.text.startsWith(`${method} ${query} ${text(request.headers, "Content-Type")}`), answer.text);
      assert.ok(answer.text.endsWith(`\n${body}`), answer.text);
    });
});

suite("questions of the OpenFaaS command line for logs", () => {
  for (const { id, request } of recorded(/^\/system\/logs$/))
    test(`${id}: ${request.query}`, async () => {
      const query = request.query.replace(/<NOW[^>]*>/, () => new Date(Date.now() - 600_000).toISOString());
      const name = new URLSearchParams(query).get("name")!;
      const namespace = new URLSearchParams(query).get("namespace") ?? world.namespace;
      await world.call(`/function/${name}.${namespace}`, { method: "POST", body: "x" });
      const ending = new AbortController();
      const url = `${world.url}/system/logs?${query}`;
      assert.equal((await fetch(url)).status, 401);
      const answer = await fetch(url, { headers: { authorization }, signal: ending.signal });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get("content-type"), "application/x-ndjson");
      let seen = "";
      for await (const piece of answer.body!.pipeThrough(new TextDecoderStream())) {
        seen += piece;
        if (seen.includes("\n")) break;
      }
      ending.abort();
      const message = JSON.parse(seen.split("\n")[0]!);
      assert.deepEqual([message.name, message.namespace], [name, namespace]);
      for (const field of ["instance", "text"]) assert.equal(typeof message[field], "string");
      assert.ok(Number.isFinite(Date.parse(message.timestamp)), message.timestamp);
    });
});
