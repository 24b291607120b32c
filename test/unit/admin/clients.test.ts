/**
 * What the OpenFaaS command line sends, as it was recorded (test/cases/cli-wire.json): every request of it that
 * concerns functions, secrets, namespaces and the daemon itself is sent again, to a place where what it names is there
 * and to one where it is not, and must be answered as that client needs it (contracts/api.md §1.5).
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { suite, test } from "node:test";
import { serveApi } from "../../fakes/api.ts";
import { openPlatform, type Platform } from "../../fakes/platform.ts";

interface Recorded {
  method: string;
  path: string;
  query: string;
  headers: Record<string, string>;
  body: string;
}
interface Cases {
  endpoints: { method: string; path: string; accept: number[] | Record<string, number[] | string> }[];
  scenarios: { id: string; observed: Record<string, string | { steps: { requests?: Recorded[] }[] }> }[];
}
const cases: Cases = JSON.parse(readFileSync(`${import.meta.dirname}/../../cases/cli-wire.json`, "utf8"));

/** Each request once, with the first scenario that has it. Logs have tests of their own. */
function recorded(): { id: string; request: Recorded }[] {
  const distinct = new Map<string, { id: string; request: Recorded }>();
  for (const { id, observed } of cases.scenarios)
    for (const seen of Object.values(observed))
      for (const { requests = [] } of typeof seen === "string" ? [] : seen.steps)
        for (const request of requests) {
          const { method, path, query, body, headers } = request;
          if (!/^\/(system\/(?!logs)|healthz$)/.test(path)) continue;
          const key = JSON.stringify([method, path, query, body, "Authorization" in headers]);
          if (!distinct.has(key)) distinct.set(key, { id, request });
        }
  return [...distinct.values()];
}

/** Statuses with which the client is content. */
function accepted({ method, path }: Recorded): number[] {
  const route = path.replace(/^(\/system\/(function|namespace))\/.+/, "$1/NAME");
  const endpoint = cases.endpoints.find((e) => e.method === method && e.path.split("?")[0] === route);
  assert.ok(endpoint, `no endpoint for ${method} ${path}`);
  return Array.isArray(endpoint.accept)
    ? endpoint.accept
    : (Object.values(endpoint.accept).flat().filter(Number.isInteger) as number[]);
}

interface Named {
  namespace: string;
  name: string;
  image: string;
  secrets: string[];
}

/** What a request is about. */
function subject({ path, query, body }: Recorded): Named {
  const sent = body === "" ? {} : JSON.parse(body);
  const name = sent.service ?? sent.functionName ?? sent.name ?? path.split("/")[3] ?? "";
  const namespace = sent.namespace ?? new URLSearchParams(query).get("namespace") ?? "fn";
  return { namespace, name, image: sent.image ?? "web:1", secrets: sent.secrets ?? [] };
}

/** Makes what must be there for the request to make sense, and, if asked for, what it is about. */
async function prepare(p: Platform, request: Recorded, isThere: boolean): Promise<void> {
  const { namespace, name, image, secrets } = subject(request);
  const put = (ns: string) => p.namespaces.put({ name: ns, labels: {}, annotations: {}, leaving: false });
  if (!p.namespaces.get(namespace)) put(namespace);
  p.backend.push("old:1");
  if (image !== "") p.backend.push(image);
  for (const secret of secrets) await p.secrets.put(namespace, secret, Buffer.from("x"));
  if (!isThere) return;
  if (request.path.includes("/function") && name !== "") await p.create({ service: name, namespace, image: "old:1" });
  else if (request.path === "/system/secrets" && name !== "") await p.secrets.put(namespace, name, Buffer.from("old"));
  else if (request.path.startsWith("/system/namespace/")) put(name);
}

/** What the client takes the answer apart into: contracts/api.md §2.1. */
function assertReadable(request: Recorded, text: string): void {
  const { method, path } = request;
  const value = method === "GET" && path !== "/healthz" ? JSON.parse(text) : text;
  if (typeof value === "string") assert.equal(value, "");
  else if (path === "/system/functions") for (const item of value) assertStatus(item);
  else if (path.startsWith("/system/function/")) assertStatus(value);
  else if (path === "/system/secrets")
    for (const { name, namespace, ...rest } of value) {
      assert.deepEqual([typeof name, namespace, rest], ["string", subject(request).namespace, {}]);
    }
  else if (path === "/system/namespaces") assert.ok(value.every((name: unknown) => typeof name === "string"));
  else if (path === "/system/info") {
    const { provider, version, arch } = value;
    for (const word of [provider.provider, provider.orchestration, arch]) assert.ok(word && typeof word === "string");
    for (const v of [provider.version, version]) for (const field of ["sha", "release"]) assert.ok(v[field]);
  } else assert.equal(value.name, subject(request).name);
}

// biome-ignore lint/suspicious/noExplicitAny: what came over the wire
function assertStatus(status: any): void {
  for (const field of ["name", "image", "namespace"]) assert.equal(typeof status[field], "string");
  for (const field of ["replicas", "availableReplicas"]) assert.ok(Number.isInteger(status[field]));
  assert.ok(Number.isFinite(Date.parse(status.createdAt)), status.createdAt);
  for (const map of ["envVars", "labels", "annotations", "limits", "requests"])
    for (const value of Object.values(status[map] ?? {})) assert.equal(typeof value, "string");
}

/** By method and path: what the client is to be told when the thing is not there, or is already. */
function elsewhere({ method, path, body }: Recorded, isThere: boolean): number | null {
  if (body.includes('"image":""')) return 400;
  if (method === "POST") return isThere ? 409 : null;
  const isAboutOne = method !== "GET" || /^\/system\/(function|namespace)\//.test(path);
  return isAboutOne && !isThere ? 404 : null;
}

suite("requests of the OpenFaaS command line", () => {
  const all = recorded();
  test("are there to be replayed", () => assert.ok(all.length >= 60, `${all.length}`));

  for (const { id, request } of all)
    for (const isThere of [true, false])
      test(`${id}: ${request.method} ${request.path}?${request.query} ${request.body.slice(0, 60)}, ${isThere ? "" : "not "}there`, async () => {
        await using p = await openPlatform();
        await prepare(p, request, isThere);
        await using api = await serveApi({ ...p, functions: p.functions() });
        const { method, path, query, body } = request;
        const { Authorization, ...headers } = request.headers;
        const target = query === "" ? path : `${path}?${query}`;
        const send = (verb: string, authorization?: null) =>
          api.ask(verb, target, {
            headers,
            ...(body !== "" && { body }),
            ...(authorization === null && { authorization }),
          });
        const isOpen = path === "/healthz";
        if (!isOpen) assert.equal((await send(method, null)).status, 401);
        if (!isOpen && Authorization === undefined) return; // whoever sends none is told so

        const answer = await send(method);
        const refused = elsewhere(request, isThere);
        if (refused !== null) {
          assert.equal(answer.status, refused, answer.text);
          // a deploy is tried as an update first, and with the same body as a creation when that says 404
          if (method === "PUT" && path === "/system/functions" && refused === 404)
            assert.equal((await send("POST")).status, 202);
          return;
        }
        assert.ok(accepted(request).includes(answer.status), `${answer.status} ${answer.text}`);
        assertReadable(request, answer.text);
        if (path === "/system/functions" && method !== "GET" && method !== "DELETE") await assertEchoed(api, request);
      });
});

/** What was deployed is shown as it was sent, which `diff` compares (contracts/api.md §2.1). */
async function assertEchoed(api: Awaited<ReturnType<typeof serveApi>>, request: Recorded): Promise<void> {
  const { service, ...sent } = JSON.parse(request.body);
  const { namespace } = subject(request);
  const listed = JSON.parse((await api.ask("GET", `/system/functions?namespace=${namespace}`)).text);
  const { createdAt, invocationCount, replicas, availableReplicas, state, ...shown } = listed[0];
  assert.deepEqual(shown, { ...sent, name: service, namespace });
}
